"""The Celery tasks: work, poll, probe, expire, reconcile, cleanup. Any number of each may run at once."""

from collections.abc import Callable

import structlog

from app.broker import WORK
from app.services.agents import leases
from app.services.dispatch import placement
from app.services.forge import reconcile as forge_reconcile
from app.services.forge.deliveries import apply_deliveries
from app.services.outbox import deliver
from app.services.runs import expiry
from workers.celery import app, worker
from workers.runs import cleanup as host_cleanup
from workers.runs import poll as host_poll
from workers.runs import start_stop

MOST_TURNS = 50
log = structlog.get_logger()


@app.task(name=WORK)
def work() -> None:
    """Apply deliveries, place tasks, start runs, deliver the outbox, until there is nothing to do.

    Starts come before comments: a run waits for no comment.
    """
    ours = worker()
    steps: tuple[Callable[[], int], ...] = (
        lambda: apply_deliveries(ours.fleet),
        lambda: placement.place_waiting(ours.fleet),
        lambda: start_stop.deliver_due(ours),
        lambda: deliver.deliver_due(ours.fleet),
    )
    for _ in range(MOST_TURNS):
        if not sum(step() for step in steps):
            return
    log.warning("a work task had more to do than one may; the next one goes on")


@app.task(name="fleet.poll")
def poll() -> None:
    """Poll the hosts that are due for their runs."""
    ours = worker()
    ended = host_poll.poll_due(ours)
    ours.prober.keep_connections()
    if ended:
        work()


@app.task(name="fleet.probe")
def probe() -> None:
    """Probe the hosts that are due: which are fit for work."""
    ours = worker()
    ours.prober.probe_due()
    ours.prober.keep_connections()


@app.task(name="fleet.expire")
def expire() -> None:
    """Expire runs whose lease is over; wake tasks whose pause is over."""
    if expiry.expire_and_wake(worker().fleet):
        work()


@app.task(name="fleet.reconcile")
def reconcile() -> None:
    """Compare tasks with the forges."""
    fleet = worker().fleet
    if forge_reconcile.reconcile(fleet, every=fleet.config.reconcile_secs * 0.9):
        work()


@app.task(name="fleet.cleanup")
def cleanup() -> None:
    """Release finished runs on hosts, and forget old answers to dequeues."""
    leases.forget_answers(worker().fleet)
    host_cleanup.release_finished(worker(), every=host_cleanup.EVERY_SECS * 0.9)
