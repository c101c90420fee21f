"""The rounds: work (apply, place, start, deliver), look, probe, rescue, reconcile, sweep. Any number will do."""

import time
from collections.abc import Callable

import structlog

from app.broker import WORK
from app.services.dispatch import placement
from app.services.forge import reconcile
from app.services.forge.deliveries import apply_deliveries
from app.services.outbox import deliver
from app.services.runs import expiry
from workers.celery import app, fleet
from workers.hosts import client
from workers.hosts import probe as probes
from workers.runs import cleanup, poll, start_stop

MOST_TURNS = 50
LINES_SECS = 2.0
_lines_kept_at = float("-inf")
log = structlog.get_logger()
client.tell(lambda host, why: probes.heard(fleet(), host, why))


@app.task(name=WORK)
def work() -> None:
    """Apply deliveries, place tasks, start runs, deliver outbox entries, until a turn finds nothing to do.

    Runs come before words: a start waits for no comment.
    """
    steps: tuple[Callable[..., int], ...] = (
        apply_deliveries,
        placement.place_waiting,
        start_stop.deliver_due,
        deliver.deliver_due,
    )
    for _ in range(MOST_TURNS):
        if not sum(step(fleet()) for step in steps):
            return
    log.warning("a round of work found more to do than it may; the next one goes on")


@app.task(name="fleet.look")
def look() -> None:
    """See how the runs on the hosts are that are due."""
    ended = poll.look(fleet())
    _keep_lines()
    if ended:
        work()


@app.task(name="fleet.probe")
def probe() -> None:
    """See which hosts are fit for work."""
    probes.look(fleet())
    _keep_lines()


def _keep_lines() -> None:
    """Each process has its own lines, and which one a round comes to is chance: where the rounds between two probes are
    an odd number, two workers take turns so that one of them never probes."""
    global _lines_kept_at  # noqa: PLW0603 - one a process
    if time.monotonic() - _lines_kept_at > LINES_SECS:
        _lines_kept_at = time.monotonic()
        probes.call(fleet())


@app.task(name="fleet.rescue")
def rescue_round() -> None:
    """Move what the clock has something to say about."""
    if expiry.rescue(fleet()):
        work()


@app.task(name="fleet.reconcile")
def reconcile_round() -> None:
    """Compare with the forges."""
    if reconcile.reconcile(fleet(), every=fleet().config.reconcile_secs * 0.9):
        work()


@app.task(name="fleet.sweep")
def sweep_round() -> None:
    """Have hosts let go of what is finished and saved."""
    cleanup.sweep(fleet(), every=cleanup.EVERY_SECS * 0.9)
