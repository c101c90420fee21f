"""Runs that meet a limit: helpers of the tests of credentials and budgets."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from app.domain.run import Outcome, Run, Verdict
from app.domain.task import Task
from app.ports import Fleet
from app.services.runs import report
from app.store import repositories, runs, tasks
from tests.builders import a_repository, a_stored_task, apply

RESET = timedelta(hours=2)
LIMITED = {"end": "failed", "step": "agent", "exit_code": 1, "reason": "the CLI ended with code 1"}


def a_cli(**given: Any) -> dict[str, Any]:
    return {"argv": ["x"], "parser": "raw", "prompt": "stdin", **given}


def a_limit(fleet: Fleet, reset: timedelta | None = RESET, **given: Any) -> Outcome:
    at = (fleet.clock() + reset).isoformat() if reset else None
    return Outcome(Verdict.LIMITED, session_id="s-1", failure="usage_limit", resets_at=at, **given)


def begin(fleet: Fleet, count: int = 1, **declared: Any) -> list[Task]:
    with fleet.engine.begin() as conn:
        apply(conn, **declared)
        repositories.save_repository(conn, "main", a_repository())
        return [a_stored_task(conn, f"acme/widgets#{number + 1}") for number in range(count)]


def newest(fleet: Fleet, task: Task) -> tuple[Task, Run]:
    with fleet.engine.begin() as conn:
        now = tasks.load(conn, task.id)
        run = runs.get(conn, task.id, now.run)
    assert run is not None
    return now, run


def ends(fleet: Fleet, task: Task, result: Mapping[str, Any], outcome: Outcome) -> Task:
    _, run = newest(fleet, task)
    report.started(fleet, run)
    report.ended(fleet, run, result, outcome)
    return newest(fleet, task)[0]


def states(fleet: Fleet) -> list[str]:
    with fleet.engine.begin() as conn:
        return sorted(task.state for task in tasks.all_tasks(conn))
