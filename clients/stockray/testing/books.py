"""What a check of a local cluster's books found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stockray.cluster import InvariantCount
from stockray.enums import Status

__all__ = ["REFUSALS", "Books", "NotBalanced", "books_of"]

REFUSALS = frozenset(
    {
        Status.SOLD_OUT,
        Status.LIMIT_EXCEEDED,
        Status.DEVICE_LIMIT_EXCEEDED,
        Status.NOT_STARTED,
        Status.ENDED,
        Status.PAUSED,
        Status.NOT_FOUND,
        Status.NOT_ELIGIBLE,
        Status.BUYER_FROZEN,
        Status.RATE_LIMITED,
        Status.TEAM_FULL,
        Status.TEAM_CLOSED,
        Status.TEAM_NOT_OPEN,
        Status.ALREADY_IN_TEAM,
        Status.NEW_BUYERS_ONLY,
        Status.TOO_MANY_TEAMS,
        Status.TEAM_ONLY,
    }
)
"""Answers to a reservation or a seat that were decided, and must never have taken effect."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Books:
    """What `verify` found."""

    live: bool
    """Whether the memory of running replicas was compared too."""
    invariants: tuple[InvariantCount, ...]
    """I1-I6 in order, each with the number of its checks and, if any, an example of a violation."""
    data: Mapping[str, Any]
    """The whole report, as `stockray verify -o json` prints it."""

    @property
    def ok(self) -> bool:
        """Whether nothing was violated and something was looked at."""
        return bool(self.data["ok"])


class NotBalanced(AssertionError):
    """The books do not balance. Names each invariant that was violated, with an example."""

    def __init__(self, books: Books) -> None:
        wrong = [
            f"{found.invariant}: {found.violation_count} of {found.checked_count} checks failed, "
            f"for example {found.example}"
            for found in books.invariants
            if found.violation_count
        ]
        super().__init__("\n".join(wrong) or "there was nothing to check")
        self.books = books


def books_of(data: Mapping[str, Any]) -> Books:
    """From the service's report. NotBalanced unless it is clean."""
    counts = tuple(
        InvariantCount(
            invariant=name,
            checked_count=found["checked"],
            violation_count=found["violations"],
            example=next(iter(found["examples"]), ""),
        )
        for name, found in sorted(data["invariants"].items())
    )
    books = Books(live=data["live"], invariants=counts, data=data)
    if not books.ok:
        raise NotBalanced(books)
    return books
