"""Checks budgets of runs, tasks and repositories; refuses CLIs without a price where a budget is in dollars."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection

from app.clis.pricing import limits_dollars, missing_price
from app.domain.lifecycle import Fact, FactKind
from app.domain.quota import Amount, Spent, spent_out
from app.domain.run import Run
from app.domain.task import Task
from app.ports import Fleet
from app.store import fleet_config, hosts, tasks, usage


def over_budget(fleet: Fleet, run: Run) -> Spent | None:
    """The budget that a run, its task or its repository has used up; None if there is none."""
    at = fleet.clock()
    with fleet.engine.begin() as conn:
        task = tasks.load(conn, run.task_pk)
        rule = fleet_config.rule_of(conn, task.forge, task.repository_id)
        if not rule or not rule.budget:
            return None
        extra = usage.allowance(conn, task.id)
        return spent_out(rule.budget, usage.used(conn, task, run.id, at), extra, at)


def why_unpriced(fleet: Fleet, run: Run) -> Spent | None:
    """Why a budget in dollars cannot be kept on a run: its CLI has no price. None if it can."""
    with fleet.engine.begin() as conn:
        task = tasks.load(conn, run.task_pk)
        rule = fleet_config.rule_of(conn, task.forge, task.repository_id)
        declared, changes = cli_declaration(conn, run)
    is_capped = rule is not None and limits_dollars(rule.budget)
    why = missing_price(run.agent_type or "", declared, *changes) if is_capped else None
    return Spent(f"its repository {why}; `fleet apply`, then `fleet task retry {task.task_id}`") if why else None


def cli_declaration(conn: Connection, run: Run) -> tuple[dict[str, Any] | None, list[Mapping[str, Any]]]:
    """What is said of a run's CLI: its declaration, and what the repository's rule and the host change about it."""
    task = tasks.load(conn, run.task_pk)
    rule = fleet_config.rule_of(conn, task.forge, task.repository_id)
    return fleet_config.cli_declaration(conn, run.agent_type or "", rule, hosts.machine(conn, run.host_id or ""))


def any_declared(conn: Connection) -> bool:
    return usage.any_budget(conn)


def record_stop_reason(fleet: Fleet, run: Run, spent: Spent) -> None:
    """Store why we are about to stop a run, for the process that records its end."""
    why = {"reason": "budget", "why": spent.why, "until": spent.until and spent.until.isoformat()}
    with fleet.engine.begin() as conn:
        usage.set_stop_reason(conn, run.id, why)


def raise_budget(fleet: Fleet, task_id: str, more: Amount) -> Task:
    """Raise the budget of a task by `more`; a task that is parked for its budget continues. Raises Refused."""
    with fleet.engine.begin() as conn:
        task = tasks.find(conn, task_id)
        usage.add_allowance(conn, task.id, more)
        task = tasks.record(conn, task.id, Fact(FactKind.RAISED, vars(more)), fleet.clock())
    fleet.nudge.soon()
    return task
