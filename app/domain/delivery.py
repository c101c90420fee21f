"""A delivery: one webhook request as it was received, and what became of it."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class Delivery:
    """A stored webhook request. It is a hint; the forge is asked for the facts."""

    id: int
    forge: str
    delivery_id: str  # the forge's own id, which a repeated delivery has again
    event: str  # the Event-Type header
    body: bytes  # as it was received; empty in a list
    size: int  # of the body, in bytes
    received_at: datetime
    due_at: datetime  # when it is applied next, if it waits
    tries: int
    subject: str | None  # the issue, branch or commit that it is about; None until it was parsed
    result: str | None  # applied, ignored or refused; None while it waits
    why: str | None
    applied_at: datetime | None
