"""Makes one attempt at queued work and decides what becomes of a failure: another try later, or none.

The outbox, comment commands and deliveries all fail by these rules. How long a retry waits is decided in
app/store/work_queue.py.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import structlog

from app.domain.errors import Kind, Refused, Unavailable

Result = TypeVar("Result")
log = structlog.get_logger()


@dataclass(frozen=True)
class Failure:
    """Why an attempt failed."""

    why: str
    final: bool = False  # true: do not try again
    retry_after: float | None = None  # seconds, where the other side named them


def attempt(
    work: Callable[[], Result], tries: int = 0, most_tries: int | None = None, **named: object
) -> Result | Failure:
    """What `work` returns, or why it failed. `named` says in the log which work it was.

    - An outage is never final, however long it lasts.
    - A refusal is final; a refused token is not, since tokens are rotated.
    - An unexpected error is logged, and final when `tries` has reached `most_tries`.
    """
    try:
        return work()
    except Unavailable as away:
        return Failure(str(away), retry_after=away.retry_after)
    except Refused as refused:
        return Failure(str(refused), final=refused.kind is not Kind.UNAUTHORIZED)
    except Exception as error:
        log.exception("an attempt failed by an error in agent-fleet", **named)
        return Failure(f"an error in agent-fleet: {error!r}", final=most_tries is not None and tries >= most_tries)
