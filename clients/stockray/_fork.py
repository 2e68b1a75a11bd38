"""Notices that this process is a fork of the one that made a client.

gRPC's threads do not survive a fork: a call from the child would hang for ever. The counter below
grows in every child, which costs a comparison where asking for the process id costs a system call.
"""

from __future__ import annotations

import os


class _Generation:
    value = 0


def generation() -> int:
    """How many forks lie between this process and the one that imported the module."""
    return _Generation.value


def _after_fork() -> None:
    _Generation.value += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
