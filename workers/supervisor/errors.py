"""Errors that end a request or a run, or ask for another attempt."""

from __future__ import annotations


class Refused(Exception):
    """The request cannot be carried out. The message says what happened and what to do."""


class RunEnded(Exception):
    """The run ends before its last step. `end` and `failure` become fields of its result, the message its reason."""

    def __init__(self, end: str, reason: str, failure: str | None = None) -> None:
        super().__init__(reason)
        self.end, self.failure = end, failure


class BranchMoved(Exception):
    """Someone else pushed to the task's branch since it was fetched."""
