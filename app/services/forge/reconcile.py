"""Reads the truth from the forges: with webhooks off, the state still comes right."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import structlog

from app.domain import matching
from app.domain.errors import Refused, Unavailable
from app.domain.repository import Rule, has_wildcard
from app.domain.task import Task
from app.ports import Fleet, Forge, Repository
from app.services.forge import comment_commands, deliveries, issues, pull_requests, renames, review_rounds
from app.store import fleet_config, forge_cursors, periodic_jobs, repositories, tasks

log = structlog.get_logger()
EVERYTHING_EVERY = 20  # rounds: the others list only what changed since the one before
ROUND, LONGEST_ROUND = "reconcile ", timedelta(seconds=25)
ISSUES, COMMENTS = "issues", "comments"
MEET_EVERY = timedelta(minutes=10)
OVERLAP = timedelta(seconds=5)  # what was written while we asked is asked for again
FROM_THE_BEGINNING = timedelta(hours=1)  # how far back commands are looked for in a repository that is new to us


@dataclass(frozen=True)
class _Changed:
    """The issues and pull requests of a repository that have to be looked at: all that there are where `is_everything`;
    and from when on the next round asks, once they were (`then`)."""

    issues: set[int]
    pulls: set[int]
    is_everything: bool
    then: str | None


def reconcile(fleet: Fleet, every: float | None = None) -> int:
    """Look at every issue that is wanted and every task that the forge may have moved, and hear every command; returns
    how many were looked at.

    Each repository at most once in `every` seconds over all workers, those first that were not looked at for longest; a
    round that takes long leaves the rest to the next. A forge that does not answer is left for the next round too.
    """
    deliveries.delete_old_deliveries(fleet)
    until, looked = fleet.clock() + LONGEST_ROUND, 0
    for forge_name, full_name in _in_turn(fleet):
        if fleet.clock() > until:
            break
        if _is_due(fleet, forge_name, full_name, every):
            looked += _guarded(_look, fleet, forge_name, full_name) or 0
    return looked


def _in_turn(fleet: Fleet) -> list[tuple[str, str]]:
    """Every repository that a rule means, and those that still have work of ours, those first that were not looked at
    for longest."""
    with fleet.engine.begin() as conn:
        rules = fleet_config.all_rules(conn)
    for rule in rules:
        owner = rule.name.split("/", 1)[0]
        if rule.is_pattern and not has_wildcard(owner):
            _guarded(_meet, fleet, rule, owner)
    with fleet.engine.begin() as conn:
        last, met, busy = (
            periodic_jobs.last_of(conn, ROUND),
            repositories.all_repositories(conn),
            tasks.busy_repositories(conn),
        )
    named = [(rule.forge, rule.name) for rule in rules if not rule.is_pattern]
    fitting = [
        (row.forge, row.full_name) for row in met
        if (row.forge, row.id) in busy or fleet_config.first_rule(rules, row.forge, row.full_name)
    ]  # fmt: skip
    found = dict.fromkeys([*named, *fitting])
    return sorted(found, key=lambda one: last[_round(*one)].timestamp() if _round(*one) in last else 0)


def _meet(fleet: Fleet, rule: Rule, owner: str) -> None:
    """Get to know the repositories that a pattern means: its owner's are listed now and then."""
    with fleet.engine.begin() as conn:
        if not periodic_jobs.is_due(conn, f"meet {rule.forge} {rule.name}", fleet.clock(), MEET_EVERY):
            return
        met = [row for row in repositories.all_repositories(conn) if row.forge == rule.forge]
    known = {(row.id, row.full_name) for row in met}
    for repository in fleet.forges(rule.forge).repositories_of(owner):
        with fleet.engine.begin() as conn:
            is_ours = fleet_config.rule_for(conn, rule.forge, repository.full_name) == rule
        if is_ours and (repository.id, repository.full_name) not in known:
            renames.save(fleet, rule.forge, repository)


def _round(forge_name: str, full_name: str) -> str:
    return f"{ROUND}{forge_name} {full_name}"


def _is_due(fleet: Fleet, forge_name: str, full_name: str, every: float | None) -> bool:
    with fleet.engine.begin() as conn:
        name, pause = _round(forge_name, full_name), timedelta(seconds=every or 0)
        return periodic_jobs.is_due(conn, name, fleet.clock(), pause) or every is None


def _guarded(look: Callable[..., object], *given: Any) -> int | None:
    """How many were looked at. What stands in the way of one look is logged, and the others are had all the same; None
    where nobody answered, and the same look may succeed later."""
    try:
        found = look(*given)
    except review_rounds.TooEarly:
        return 1
    except Refused as no:
        log.warning("reconcile", look=look.__name__, why=str(no))
        return None if isinstance(no, Unavailable) else 0
    except Exception:
        log.exception("reconcile", look=look.__name__)
        return 0
    return found if isinstance(found, int) else 1


def _look(fleet: Fleet, forge_name: str, full_name: str) -> int:
    forge = fleet.forges(forge_name)
    repository = forge.repository(full_name)
    if repository is None:
        return 0
    renames.save(fleet, forge_name, repository)
    with fleet.engine.begin() as conn:
        unfinished = tasks.unfinished(conn, forge_name, repository.id)
    changed = _changed(fleet, forge, repository)
    ours = [task for task in unfinished if task.live or changed.is_everything or _is_named(task, changed)]
    wanted = changed.issues | {task.issue_number for task in ours if task.issue_number}
    here, name = (fleet, forge_name, repository.full_name, repository.id), repository.full_name
    looks = [_guarded(issues.sync_issue, *here, number) for number in sorted(wanted)]
    looks += [
        _guarded(pull_requests.sync_pull, fleet, task, name, task.pr_number) for task in ours if _may_have_one(task)
    ]
    if any(task.branch and not task.run for task in ours):
        others = sorted(changed.pulls - {task.pr_number for task in unfinished})
        looks += [_guarded(_look_at_pull_of_others, fleet, forge, repository, number) for number in others]
    if changed.then and None not in looks:
        with fleet.engine.begin() as conn:
            forge_cursors.read_up_to(conn, forge.name, repository.id, ISSUES, changed.then)
    _guarded(_commands, fleet, forge, repository)
    return len(looks)


def _is_named(task: Task, changed: _Changed) -> bool:
    """What has ended is looked at when something happened to its issue or its pull request."""
    return task.issue_number in changed.issues or task.pr_number in changed.pulls


def _may_have_one(task: Task) -> bool:
    return bool(task.branch and task.run)


def _look_at_pull_of_others(fleet: Fleet, forge: Forge, repository: Repository, number: int) -> None:
    """Somebody may have done a task's work before anybody of ours began."""
    pull = forge.pull(repository.full_name, number)
    if pull and pull.branch:
        with fleet.engine.begin() as conn:
            task = tasks.of_branch(conn, forge.name, repository.id, pull.branch, None)
        if task:
            pull_requests.sync_pull(fleet, task, repository.full_name, number)


def _changed(fleet: Fleet, forge: Forge, repository: Repository) -> _Changed:
    """What may have become wanted: what changed since the last round, now and then all that is wanted."""
    now = forge.server_time(OVERLAP)
    with fleet.engine.begin() as conn:
        since = forge_cursors.since(conn, forge.name, repository.id, ISSUES)
    turn, _, moment = (since or f"{EVERYTHING_EVERY} ").partition(" ")
    is_everything = not moment or int(turn) >= EVERYTHING_EVERY
    if is_everything:
        turn, found, changed = "0", forge.wanted_issues(repository.full_name, matching.PREFIX), []
    else:
        changed = forge.changed_issues(repository.full_name, moment)
        found = [number for number, is_pull in changed if not is_pull]
    pulls = {number for number, is_pull in changed if is_pull}
    return _Changed(set(found), pulls, is_everything, f"{int(turn) + 1} {now}" if now else None)


def _commands(fleet: Fleet, forge: Forge, repository: Repository) -> None:
    """Hear the commands that no delivery brought, from where the last round had read to, by the forge's own clock."""
    now, first = forge.server_time(OVERLAP), forge.server_time(FROM_THE_BEGINNING)
    with fleet.engine.begin() as conn:
        since = forge_cursors.since(conn, forge.name, repository.id, COMMENTS) or first
    if now is None or since is None:
        return
    for comment in forge.comments_since(repository.full_name, since):
        comment_commands.queue_from_comment(fleet, forge, repository.id, repository.full_name, comment)
    with fleet.engine.begin() as conn:
        forge_cursors.read_up_to(conn, forge.name, repository.id, COMMENTS, now)
