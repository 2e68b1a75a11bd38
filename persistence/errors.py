"""What a store can answer instead of doing what it was asked.

The class says two things to the shell: whether the same call may be sent again (`retriable`),
and whether it may have taken effect (`maybe_applied`). Adapters translate their driver's errors
into these and raise them `from` the original; no driver error leaves `persistence/`.
"""

from typing import ClassVar


class StorageError(Exception):
    """Base of everything a store raises."""

    retriable: ClassVar[bool] = False
    maybe_applied: ClassVar[bool] = False


class NotApplied(StorageError):
    """The store is there but refused this call for now (loading, full, read-only): not applied."""

    retriable: ClassVar[bool] = True


class OutcomeUnknown(StorageError):
    """Timed out, or the connection closed: resend the same call until the answer is definite."""

    retriable: ClassVar[bool] = True
    maybe_applied: ClassVar[bool] = True


class Locked(NotApplied):
    """Another process holds the store's write lock. `owner` is what the store recorded of it."""

    def __init__(self, message: str, owner: str) -> None:
        super().__init__(message)
        self.owner = owner


class Fenced(StorageError):
    """A newer epoch owns the journal. The caller must never write or answer again."""

    def __init__(self, *, epoch: int, owner: str) -> None:
        super().__init__(f"fenced: the journal belongs to epoch {epoch} ({owner})")
        self.epoch = epoch
        self.owner = owner


class Conflict(StorageError):
    """The sequence does not follow the last one, and this batch is not the last one resent."""

    def __init__(self, *, last_seq: int) -> None:
        super().__init__(f"sequence conflict: the journal ends at {last_seq}")
        self.last_seq = last_seq


class NoJournal(StorageError):
    """No journal of this incarnation is here: never made, wiped, or another's. Fail closed."""


class JournalExists(StorageError):
    """`create` found a journal with another incarnation."""


class Trimmed(StorageError):
    """The entries asked for are gone. Reload from a snapshot; never skip."""

    def __init__(self, *, first_seq: int) -> None:
        super().__init__(f"trimmed: the journal begins at {first_seq}")
        self.first_seq = first_seq


class Corrupt(StorageError):
    """What is stored cannot be what was written. Says where."""


class PositionMoved(StorageError):
    """The sink's position is not the one the batch starts from: somebody else applied it."""

    def __init__(self, *, position: int) -> None:
        super().__init__(f"the stored position is {position}")
        self.position = position


class WrongRevision(StorageError):
    """The database schema is not the one this release needs; `stockray db upgrade` mends it."""


class Misconfigured(StorageError):
    """The store's own settings would lose acknowledged sales. Says which, and what they must be."""
