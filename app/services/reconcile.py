"""Reads the truth from the forges: with webhooks off, the state still comes right."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import structlog

from app.domain import matching
from app.domain.errors import Refused
from app.ports import Fleet
from app.services import intake, review
from app.store import places, rounds, tasks
from app.store.tables import Row

log = structlog.get_logger()


def reconcile(fleet: Fleet, every: float | None = None) -> int:
    """Look at every issue that is wanted and every task that the forge may have moved; returns how many were.

    At most once in `every` seconds over all workers. A forge that does not answer is left for the next round.
    """
    with fleet.engine.begin() as conn:
        if every and not rounds.is_due(conn, "reconcile", fleet.clock(), timedelta(seconds=every)):
            return 0
        rules = places.all_rules(conn)
    return sum(_repository(fleet, rule["forge"], name) for rule in rules for name in _names(fleet, rule))


def _names(fleet: Fleet, rule: Row) -> list[str]:
    """The repositories that a rule means: its name, or for a pattern those that we have met."""
    if not set(rule["name"]) & set("*?["):
        return [rule["name"]]
    with fleet.engine.begin() as conn:
        known = [row["full_name"] for row in places.all_repositories(conn) if row["forge"] == rule["forge"]]
        return [name for name in known if places.rule_for(conn, rule["forge"], name) == rule]


def _repository(fleet: Fleet, forge_name: str, full_name: str) -> int:
    """One repository; what stands in its way is logged, and the others are looked at all the same."""
    return _guarded(_look, fleet, forge_name, full_name)


def _guarded(look: Callable[..., object], *given: Any) -> int:
    try:
        found = look(*given)
    except Refused as no:
        log.warning("reconcile", look=look.__name__, why=str(no))
        return 0
    except Exception:
        log.exception("reconcile", look=look.__name__)
        return 0
    return found if isinstance(found, int) else 1


def _look(fleet: Fleet, forge_name: str, full_name: str) -> int:
    forge = fleet.forges(forge_name)
    repository = forge.repository(full_name)
    if repository is None:
        return 0
    with fleet.engine.begin() as conn:
        places.remember_repository(conn, forge_name, vars(repository))
        open_tasks = tasks.unfinished(conn, forge_name, repository.id)
    wanted = set(forge.wanted_issues(full_name, matching.PREFIX)) | {
        task.issue_number for task in open_tasks if task.issue_number
    }
    for number in sorted(wanted):
        _guarded(intake.look_at_issue, fleet, forge_name, full_name, repository.id, number)
    for task in open_tasks:
        if task.branch and task.run:
            _guarded(review.look_at_pull, fleet, task, full_name, task.pr_number)
    return len(wanted) + len(open_tasks)
