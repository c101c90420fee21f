"""What can be refused, and the sentence for the one who must act."""

from enum import StrEnum


class Kind(StrEnum):
    """Why something was refused; each face has its own table from kind to status or exit code."""

    INVALID = "invalid"
    UNAUTHORIZED = "unauthorized"
    FORBIDDEN = "forbidden"
    UNKNOWN = "unknown"
    STALE = "stale"
    TOO_LARGE = "too_large"
    BUSY = "busy"
    UNAVAILABLE = "unavailable"


class Refused(Exception):
    """A request that was understood and not done. `str()` of it says what to do next."""

    def __init__(self, kind: Kind, sentence: str) -> None:
        super().__init__(sentence)
        self.kind = kind


class Unavailable(Refused):
    """Something outside (forge, host) did not answer; the same request may go through later."""

    def __init__(self, sentence: str, retry_after: float | None = None) -> None:
        super().__init__(Kind.UNAVAILABLE, sentence)
        self.retry_after = retry_after
