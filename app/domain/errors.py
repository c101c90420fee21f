"""Defines the errors of the domain: each has a kind and a sentence that says what to do."""

from enum import StrEnum


class Kind(StrEnum):
    """The kind of a refusal. The API and the commands map it to a status or an exit code."""

    INVALID = "invalid"
    UNAUTHORIZED = "unauthorized"
    FORBIDDEN = "forbidden"
    UNKNOWN = "unknown"
    STALE = "stale"
    TOO_LARGE = "too_large"
    BUSY = "busy"
    UNAVAILABLE = "unavailable"


class Refused(Exception):
    """A request is rejected. `str()` gives the sentence, which says what to do."""

    def __init__(self, kind: Kind, sentence: str) -> None:
        super().__init__(sentence)
        self.kind = kind


class Unavailable(Refused):
    """The forge or a host did not answer. The same request may succeed later, after `retry_after` seconds if known."""

    def __init__(self, sentence: str, retry_after: float | None = None) -> None:
        super().__init__(Kind.UNAVAILABLE, sentence)
        self.retry_after = retry_after
