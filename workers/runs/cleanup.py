"""Releases finished runs on hosts: by age and state, and at once if a disk is nearly full.

Every EVERY_SECS. Two workers at once: one of them does it. The host keeps unpushed work: it pushes it to
refs/heads/wip/<task> on the forge, or saves it in an archive in its work folder.
"""

from collections.abc import Iterable
from dataclasses import asdict
from datetime import timedelta
from itertools import groupby

import structlog

from app.domain.errors import Refused
from app.domain.host import Machine
from app.domain.run import Run
from app.domain.task import State
from app.ports import Fleet
from app.services.dispatch import git_flow, start_order
from app.store import hosts, periodic_jobs, repositories, runs, task_details, tasks
from app.store.runs import KeptRun
from workers.errors import Unable, Unreachable
from workers.runs.start_request import repository_as_json
from workers.supervisor_messages import ReleaseRequest
from workers.worker import Worker

EVERY_SECS = 60.0
MOST_AT_ONCE = 20  # runs of one host
log = structlog.get_logger()


def release_finished(worker: Worker, every: float | None = None) -> int:
    """Release what may go on all hosts; returns how many runs. At most once in `every` seconds over all workers."""
    fleet = worker.fleet
    with fleet.engine.begin() as conn:
        if every and not periodic_jobs.is_due(conn, "sweep", fleet.clock(), timedelta(seconds=every)):
            return 0
        kept = sorted(runs.kept_on_hosts(conn), key=_host_id)
        machines = hosts.machines(conn, set(map(_host_id, kept))) if kept else {}
    by_host = groupby(kept, _host_id)
    return sum(_clean_host(worker, machines[name], list(ours)) for name, ours in by_host if name in machines)


def _host_id(kept: KeptRun) -> str:
    return kept.run.host_id or ""


def _clean_host(worker: Worker, machine: Machine, kept: list[KeptRun]) -> int:
    try:
        chosen = list(_choose(worker, machine, kept))[:MOST_AT_ONCE]
        return sum(
            _release(worker, machine, run, is_last=_is_last(run, [one.run for one in kept], chosen)) for run in chosen
        )
    except Unreachable as why:
        log.warning("the runs of a host could not be released", host=machine.host_id, why=str(why))
        return 0


def _choose(worker: Worker, machine: Machine, kept: list[KeptRun]) -> Iterable[Run]:
    """The runs that are old enough, oldest first; then the others, as long as the disk is nearly full."""
    old = [one for one in kept if _is_old(worker.fleet, one)]
    yield from (one.run for one in old)
    for one in kept:
        if one not in old and _is_disk_full(worker, machine):
            yield one.run


def _is_old(fleet: Fleet, kept: KeptRun) -> bool:
    """Failed work is kept longer: people may want to inspect it on the host."""
    config = fleet.config
    keep = config.keep_failed_secs if kept.state is State.FAILED else config.keep_secs
    return kept.since <= fleet.clock() - timedelta(seconds=keep)


def _is_disk_full(worker: Worker, machine: Machine) -> bool:
    answer = worker.hosts.request(machine, "poll", {"runs": []})
    return int(answer.get("disk_free", 1 << 60)) < worker.fleet.config.disk_floor_mb << 20


def _is_last(run: Run, kept: list[Run], chosen: list[Run]) -> bool:
    """True if no other run of the task stays on the host: then its worktree goes too."""
    same = [other for other in kept if other.task_pk == run.task_pk]
    return all(other in chosen for other in same) and run.number == max(other.number for other in same)


def _release(worker: Worker, machine: Machine, run: Run, is_last: bool) -> bool:
    """True once the host keeps nothing of the run. A run whose end was never seen is cancelled first."""
    fleet = worker.fleet
    try:
        if run.result is None:
            cancelled = worker.hosts.request(machine, "cancel", {"run": run.name})["state"]
            if cancelled == "cancelling" or _is_log_awaited(fleet, run):
                return False
        answer = worker.hosts.request(machine, "release", _release_request(fleet, run, worktree=is_last))
    except (Unable, Refused) as why:
        log.warning("a run could not be released", run=run.name, host=machine.host_id, why=str(why))
        return False
    with fleet.engine.begin() as conn:
        runs.mark_released(conn, run.id, fleet.clock(), answer.get("saved"))
    log.info("released", run=run.name, host=machine.host_id, saved=answer.get("saved"))
    return True


def _is_log_awaited(fleet: Fleet, run: Run) -> bool:
    """True while polls still collect the log of an expired run."""
    return run.end == "expired" and run.ended_at is not None and run.ended_at >= fleet.clock() - runs.RESULT_AWAITED


def _release_request(fleet: Fleet, run: Run, worktree: bool) -> ReleaseRequest:
    with fleet.engine.begin() as conn:
        task = tasks.load(conn, run.task_pk)
        repository = repositories.repository(conn, task.forge, task.repository_id)
        details = task_details.get(conn, task.id)
    login = git_flow.login_of(fleet, task) if repository else None
    return {
        "run": run.name,
        "task": start_order.task_name(task),
        "worktree": worktree,
        "repository": repository_as_json(git_flow.repository_of(task, repository, details)) if repository else None,
        "credentials": asdict(login) if login else None,
    }
