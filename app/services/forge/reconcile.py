"""Reconciles tasks with the forges: even without webhooks, every issue, pull request and command is found.

Every FLEET_RECONCILE_SECS. If two workers run it at once, each repository is taken by one of them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import structlog

from app.domain import matching
from app.domain.errors import Refused, Unavailable
from app.domain.repository import RepositoryRecord, Rule, has_wildcard
from app.domain.task import Task
from app.ports import Fleet, Forge, Repository
from app.services.forge import comment_commands, deliveries, issues, pull_requests, renames, review_rounds
from app.store import fleet_config, forge_cursors, periodic_jobs, repositories, tasks

log = structlog.get_logger()
FULL_ROUND_EVERY = 20  # rounds; the others list only what changed since the round before
JOB, LONGEST_ROUND = "reconcile ", timedelta(seconds=25)
ISSUES, COMMENTS = "issues", "comments"
DISCOVER_EVERY = timedelta(minutes=10)
OVERLAP = timedelta(seconds=5)  # what was written during a query is queried again
FIRST_LOOK_BACK = timedelta(hours=1)  # how old a command may be in a repository that is new to us


def reconcile(fleet: Fleet, every: float | None = None) -> int:
    """Sync every wanted issue and every unfinished task, and queue every command; returns how many were synced.

    Each repository is reconciled at most once in `every` seconds over all workers, the one that waited longest first. A
    long round leaves the rest to the next. So does a forge that does not answer.
    """
    deliveries.delete_old_deliveries(fleet)
    until, synced = fleet.clock() + LONGEST_ROUND, 0
    for forge_name, full_name in _repositories_in_order(fleet):
        if fleet.clock() > until:
            break
        if _is_due(fleet, forge_name, full_name, every):
            synced += _try(_reconcile_repository, fleet, forge_name, full_name) or 0
    return synced


# --- which repositories ----------------------------------------------------------------------------------


def _repositories_in_order(fleet: Fleet) -> list[tuple[str, str]]:
    """The repositories that a rule fits or that have live tasks, as (forge, name); the longest not reconciled first."""
    with fleet.engine.begin() as conn:
        rules = fleet_config.all_rules(conn)
    for rule in rules:
        owner = rule.name.split("/", 1)[0]
        if rule.is_pattern and not has_wildcard(owner):
            _try(_discover, fleet, rule, owner)
    with fleet.engine.begin() as conn:
        last = periodic_jobs.last_runs(conn, JOB)
        known, busy = repositories.all_repositories(conn), tasks.busy_repositories(conn)
    named = [(rule.forge, rule.name) for rule in rules if not rule.is_pattern]
    fitting = [(one.forge, one.full_name) for one in known if _is_ours(one, rules, busy)]
    found = dict.fromkeys([*named, *fitting])
    return sorted(found, key=lambda one: last[_job(*one)].timestamp() if _job(*one) in last else 0)


def _is_ours(known: RepositoryRecord, rules: list[Rule], busy: set[tuple[str, int]]) -> bool:
    return (known.forge, known.id) in busy or bool(fleet_config.first_rule(rules, known.forge, known.full_name))


def _discover(fleet: Fleet, rule: Rule, owner: str) -> None:
    """Store the repositories that fit a pattern, from the list of their owner, every DISCOVER_EVERY."""
    with fleet.engine.begin() as conn:
        if not periodic_jobs.is_due(conn, f"meet {rule.forge} {rule.name}", fleet.clock(), DISCOVER_EVERY):
            return
        known = {(one.id, one.full_name) for one in repositories.all_repositories(conn) if one.forge == rule.forge}
    for repository in fleet.forges(rule.forge).repositories_of(owner):
        with fleet.engine.begin() as conn:
            is_ours = fleet_config.rule_for(conn, rule.forge, repository.full_name) == rule
        if is_ours and (repository.id, repository.full_name) not in known:
            renames.save(fleet, rule.forge, repository)


def _job(forge_name: str, full_name: str) -> str:
    return f"{JOB}{forge_name} {full_name}"


def _is_due(fleet: Fleet, forge_name: str, full_name: str, every: float | None) -> bool:
    with fleet.engine.begin() as conn:
        name, pause = _job(forge_name, full_name), timedelta(seconds=every or 0)
        return periodic_jobs.is_due(conn, name, fleet.clock(), pause) or every is None


def _try(step: Callable[..., object], *given: Any) -> int | None:
    """Run one step; its failure is logged and does not stop the others. Returns how many were synced; None if the forge
    did not answer, so that the step may succeed later."""
    try:
        result = step(*given)
    except review_rounds.TooEarly:
        return 1
    except Refused as no:
        log.warning("reconcile", step=step.__name__, why=str(no))
        return None if isinstance(no, Unavailable) else 0
    except Exception:
        log.exception("reconcile", step=step.__name__)
        return 0
    return result if isinstance(result, int) else 1


# --- one repository --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Changes:
    """The numbers of issues and pull requests to sync: the changed ones, or all wanted ones in a full round.

    `next_cursor` is stored once all of them are synced.
    """

    issues: set[int]
    pulls: set[int]
    is_full: bool
    next_cursor: str | None

    def names(self, task: Task) -> bool:
        return task.issue_number in self.issues or task.pr_number in self.pulls


def _reconcile_repository(fleet: Fleet, forge_name: str, full_name: str) -> int:
    forge = fleet.forges(forge_name)
    repository = forge.repository(full_name)
    if repository is None:
        return 0
    renames.save(fleet, forge_name, repository)
    with fleet.engine.begin() as conn:
        unfinished = tasks.unfinished(conn, forge_name, repository.id)
    changes = _find_changes(fleet, forge, repository)
    results = _sync_changes(fleet, forge, repository, changes, unfinished)
    if changes.next_cursor and None not in results:
        with fleet.engine.begin() as conn:
            forge_cursors.set_cursor(conn, forge.name, repository.id, ISSUES, changes.next_cursor)
    _try(_queue_commands, fleet, forge, repository)
    return len(results)


def _find_changes(fleet: Fleet, forge: Forge, repository: Repository) -> _Changes:
    """The cursor is "<rounds since the last full one> <time of the forge's clock>"."""
    now = forge.server_time(OVERLAP)
    with fleet.engine.begin() as conn:
        cursor = forge_cursors.cursor(conn, forge.name, repository.id, ISSUES)
    rounds, _, since = (cursor or f"{FULL_ROUND_EVERY} ").partition(" ")
    is_full = not since or int(rounds) >= FULL_ROUND_EVERY
    if is_full:
        rounds, found, changed = "0", forge.wanted_issues(repository.full_name, matching.PREFIX), []
    else:
        changed = forge.changed_issues(repository.full_name, since)
        found = [number for number, is_pull in changed if not is_pull]
    pulls = {number for number, is_pull in changed if is_pull}
    return _Changes(set(found), pulls, is_full, f"{int(rounds) + 1} {now}" if now else None)


def _sync_changes(
    fleet: Fleet, forge: Forge, repository: Repository, changes: _Changes, unfinished: list[Task]
) -> list[int | None]:
    """Sync changed issues, live tasks, and ended tasks whose issue or pull request changed."""
    ours = [task for task in unfinished if task.live or changes.is_full or changes.names(task)]
    name, numbers = repository.full_name, changes.issues | {task.issue_number for task in ours if task.issue_number}
    results = [_try(issues.sync_issue, fleet, forge.name, name, repository.id, number) for number in sorted(numbers)]
    with_run = [task for task in ours if task.branch and task.run]
    results += [_try(pull_requests.sync_pull, fleet, task, name, task.pr_number) for task in with_run]
    if any(task.branch and not task.run for task in ours):
        others = sorted(changes.pulls - {task.pr_number for task in unfinished})
        results += [_try(_sync_other_pull, fleet, forge, repository, number) for number in others]
    return results


def _sync_other_pull(fleet: Fleet, forge: Forge, repository: Repository, number: int) -> None:
    """A person may have opened a pull request from a task's branch before the first run began."""
    pull = forge.pull(repository.full_name, number)
    if pull and pull.branch:
        with fleet.engine.begin() as conn:
            task = tasks.find_by_branch(conn, forge.name, repository.id, pull.branch, None)
        if task:
            pull_requests.sync_pull(fleet, task, repository.full_name, number)


def _queue_commands(fleet: Fleet, forge: Forge, repository: Repository) -> None:
    """Queue the commands that no delivery brought, in comments since the last round, by the forge's clock."""
    now, first = forge.server_time(OVERLAP), forge.server_time(FIRST_LOOK_BACK)
    with fleet.engine.begin() as conn:
        since = forge_cursors.cursor(conn, forge.name, repository.id, COMMENTS) or first
    if now is None or since is None:
        return
    for comment in forge.comments_since(repository.full_name, since):
        comment_commands.queue_from_comment(fleet, forge, repository.id, repository.full_name, comment)
    with fleet.engine.begin() as conn:
        forge_cursors.set_cursor(conn, forge.name, repository.id, COMMENTS, now)
