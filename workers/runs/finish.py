"""Finishes a run whose host reports its end: reads its output, records the outcome, drains a host with survivors."""

from collections.abc import Mapping
from typing import Any

import structlog

from app.domain.host import Fitness
from app.domain.run import Run
from app.ports import Fleet
from app.services.dispatch import host_health
from app.services.runs import recover, report
from workers.runs import output
from workers.worker import Worker

log = structlog.get_logger()


def finish(worker: Worker, run: Run, result: Mapping[str, Any]) -> bool:
    """Record the end of a run whose log is stored whole; False if it had ended before.

    A run that was lost is looked for on the forge first. Raises Unavailable while the forge does not answer.
    """
    fleet = worker.fleet
    if result.get("end") == "lost":
        result = recover.find_delivered(fleet, run, result) or result
    outcome = output.outcome(worker, run, result)
    kept = {name: value for name, value in result.items() if name != "noted"}
    ended = report.ended(fleet, run, kept, outcome)
    if ended and result.get("survivors"):
        _drain(fleet, run, result["survivors"])
    return ended


def _drain(fleet: Fleet, run: Run, survivors: list[dict[str, Any]]) -> None:
    """Processes that survive KILL may write where the next run works: give the host no more work."""
    named = ", ".join(f"{one['pid']} ({one['command']})" for one in survivors[:5])
    why = f"{run.name} left processes that could not be ended: {named}. End them there, then resume the host."
    host_health.set_fitness(fleet, run.host_id or "", Fitness.DRAINING, fleet.mask.text(why))
    log.error("a host is drained", host=run.host_id, why=why)
