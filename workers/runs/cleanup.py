"""Has hosts let go of finished runs and their worktrees: by age, by state, and sooner where a disk is nearly full.

The host itself keeps what is unpushed: it goes to refs/heads/wip/<task> on the forge, or into a bundle beside.
"""

from collections.abc import Iterable
from datetime import timedelta
from itertools import groupby
from typing import Any

import structlog

from app.domain.errors import Refused
from app.domain.task import State
from app.ports import Fleet
from app.services.dispatch import git_flow, start_order
from app.store import hosts, periodic_jobs, repositories, runs, tasks, views
from app.store.tables import Row
from workers.hosts import client
from workers.hosts.client import Unable, Unreachable
from workers.runs import start_request

EVERY_SECS = 60.0
MOST_AT_ONCE = 20  # runs of one host in one round
log = structlog.get_logger()


def sweep(fleet: Fleet, every: float | None = None) -> int:
    """One round over all hosts, at most once in `every` seconds over all workers; returns how many runs were let go."""
    with fleet.engine.begin() as conn:
        if every and not periodic_jobs.is_due(conn, "sweep", fleet.clock(), timedelta(seconds=every)):
            return 0
        kept = sorted(runs.kept_on_hosts(conn), key=lambda run: str(run["host_id"]))
    return sum(_sweep_host(fleet, host_id, list(ours)) for host_id, ours in groupby(kept, lambda run: run["host_id"]))


def _sweep_host(fleet: Fleet, host_id: str, kept: list[Row]) -> int:
    with fleet.engine.begin() as conn:
        host = hosts.host(conn, host_id)
    if host is None:
        return 0
    try:
        chosen = list(_chosen(fleet, host, kept))[:MOST_AT_ONCE]
        return sum(_let_go(fleet, host, run, last=_is_last(run, kept, chosen)) for run in chosen)
    except Unreachable as why:
        log.warning("a host could not be swept", host=host_id, why=str(why))
        return 0


def _chosen(fleet: Fleet, host: Row, kept: list[Row]) -> Iterable[Row]:
    """Those that are old enough, oldest first; where the disk is nearly full, the others as long as it is so."""
    old = [run for run in kept if _is_old(fleet, run)]
    yield from old
    for run in kept:
        if run not in old and _is_tight(fleet, host):
            yield run


def _is_old(fleet: Fleet, run: Row) -> bool:
    """Work that failed is kept longer: somebody may want to look at it where it was done."""
    config = fleet.config
    keep = config.keep_failed_secs if run["state"] == State.FAILED else config.keep_secs
    return bool(run["moved_at"] <= fleet.clock() - timedelta(seconds=keep))


def _is_tight(fleet: Fleet, host: Row) -> bool:
    answer = client.ask(host, "poll", start_request.about(fleet, host) | {"runs": []})
    return int(answer.get("disk_free", 1 << 60)) < fleet.config.disk_floor_mb << 20


def _is_last(run: Row, kept: list[Row], chosen: list[Row]) -> bool:
    """Whether no later run of the same task stays on the host: then its worktree goes too."""
    same = [other for other in kept if other["task_pk"] == run["task_pk"]]
    return all(other in chosen for other in same) and run["number"] == max(other["number"] for other in same)


def _let_go(fleet: Fleet, host: Row, run: Row, last: bool) -> bool:
    """True when the host keeps nothing of the run any more. One whose end was never heard is ended first, and the rest
    of its log waited for."""
    request = _request(fleet, host, run, worktree=last)
    try:
        if run["result"] is None:
            cancelled = client.ask(host, "cancel", _about(fleet, host, run))["state"]
            if cancelled == "cancelling" or _is_waited_for(fleet, run):
                return False
        answer = client.ask(host, "release", request)
    except (Unable, Refused) as why:
        log.warning("a run could not be released", run=run["name"], host=host["host_id"], why=str(why))
        return False
    with fleet.engine.begin() as conn:
        runs.released(conn, run["id"], fleet.clock(), answer.get("saved"))
    log.info("released", run=run["name"], host=host["host_id"], saved=answer.get("saved"))
    return True


def _is_waited_for(fleet: Fleet, run: Row) -> bool:
    """Whether looks at its host still want to hear of it."""
    return bool(run["end"] == "expired" and run["ended_at"] >= fleet.clock() - runs.UNHEARD)


def _about(fleet: Fleet, host: Row, run: Row) -> dict[str, Any]:
    return start_request.about(fleet, host, run["name"])


def _request(fleet: Fleet, host: Row, run: Row, worktree: bool) -> dict[str, Any]:
    with fleet.engine.begin() as conn:
        task = tasks.load(conn, run["task_pk"])
        repository = repositories.repository(conn, task.forge, task.repository_id)
        brief = views.brief(conn, task.id)
    return _about(fleet, host, run) | {
        "task": start_order.task_name(task),
        "worktree": worktree,
        "repository": git_flow.repository_of(task, repository, brief) if repository else None,
        "credentials": git_flow.credentials(fleet, task) if repository else None,
    }
