"""Applies webhook deliveries: finds out what each is about, then asks the forge once for each subject."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial

import structlog
from sqlalchemy import Connection

from app.domain.delivery import Delivery
from app.domain.errors import Unavailable
from app.domain.task import Task
from app.forgejo import hints
from app.forgejo.hints import Hint
from app.forgejo.webhook_payloads import InvalidPayload
from app.ports import Fleet
from app.services.attempts import Failure, attempt
from app.services.forge import comment_commands, issues, permissions, pull_requests, renames
from app.store import deliveries, fleet_config, task_details, tasks

LONGEST_BATCH = timedelta(seconds=20)  # with a slow forge, the rest waits for the next call
SUBJECTS_AT_ONCE = 20  # that are applied before commands are executed
MOST_BATCHES = 40  # of 50 deliveries whose subject is found before the first is applied
NO_TASK = "no task works on"
TASK_MAY_FOLLOW = timedelta(minutes=10)  # how long a delivery about our branch waits for the branch's task
OUR_BRANCH = re.compile(r"task/[0-9]{1,18}(-[a-z0-9-]*)?")
APPLIED, IGNORED, REFUSED = "applied", "ignored", "refused"
log = structlog.get_logger()

Outcome = tuple[str, str]  # the result of a delivery, and a sentence about it


def apply_deliveries(fleet: Fleet) -> int:
    """Apply waiting deliveries, oldest first, then execute the commands that they brought; returns how many.

    Deliveries of one issue or branch are applied together. They wait while the forge does not answer. Those that can
    never be applied are refused.
    """
    until, done = fleet.clock() + LONGEST_BATCH, set_subjects(fleet)
    for _ in range(SUBJECTS_AT_ONCE):
        if fleet.clock() > until:
            break
        with fleet.engine.begin() as conn:
            held = deliveries.take(conn, fleet.clock())
        if not held:
            break
        _apply(fleet, held)
        done += len(held)
    return done + comment_commands.execute_commands(fleet)


def delete_old_deliveries(fleet: Fleet) -> int:
    """Delete deliveries that were applied more than FLEET_KEEP_DELIVERIES_DAYS ago."""
    with fleet.engine.begin() as conn:
        return deliveries.delete_applied(conn, fleet.clock() - timedelta(days=fleet.config.keep_deliveries_days))


# --- the subject of a delivery ---------------------------------------------------------------------------


def set_subjects(fleet: Fleet) -> int:
    """Store the subjects of new deliveries, without asking the forge; returns how many needed no more than that."""
    done = 0
    for _ in range(MOST_BATCHES):
        with fleet.engine.begin() as conn:
            new = deliveries.without_subject(conn)
            subjects = {delivery.id: _subject_of(fleet, conn, delivery) for delivery in new}
            deliveries.set_subjects(conn, {id_: subject for id_, subject in subjects.items() if subject})
        done += sum(not subject for subject in subjects.values())
        if not new:
            break
    return done


def _subject_of(fleet: Fleet, conn: Connection, delivery: Delivery) -> str | None:
    """The subject of a delivery; None if it needs no lookup, and is marked as applied."""
    try:
        hint = hints.parse_delivery(delivery.event, delivery.body)
    except InvalidPayload as error:
        _mark_applied(fleet, conn, [delivery], (REFUSED, str(error)))
        return None
    except Exception:
        log.exception("a delivery could not be parsed", delivery=delivery.delivery_id)
        return f"delivery {delivery.id}"  # it waits alone
    if hint is None:
        _mark_applied(fleet, conn, [delivery], (IGNORED, f"{delivery.event} is not about a task"))
    elif hint.is_test:
        _mark_applied(fleet, conn, [delivery], (APPLIED, "a test delivery: the hook works"))
    return hint.subject if hint and not hint.is_test else None


# --- the deliveries of one subject -----------------------------------------------------------------------


@dataclass(frozen=True)
class _Lookup:
    """A lookup on the forge: `sync` brings an issue or a pull request up to date, and returns what was found."""

    sync: Callable[[], str]
    deliveries: list[Delivery]


_Target = tuple[str, int, int]  # "issue" or "pull", the task's key or 0, the number
_Lookups = dict[_Target, _Lookup]


def _apply(fleet: Fleet, held: Sequence[Delivery]) -> None:
    """Queue the commands among these deliveries, then look up each issue and pull request once. Deliveries with equal
    hints are handled as one."""
    groups: dict[Hint | int, list[Delivery]] = {}
    for delivery in held:
        groups.setdefault(_hint_of(delivery) or delivery.id, []).append(delivery)
    lookups: _Lookups = {}
    for hint, equal in groups.items():
        known = hint if isinstance(hint, Hint) else None
        _finish_or_postpone(fleet, equal, partial(_plan_lookup, fleet, known, equal, lookups))
    for lookup in lookups.values():
        _finish_or_postpone(fleet, lookup.deliveries, partial(_run_lookup, lookup))


def _hint_of(delivery: Delivery) -> Hint | None:
    """The hint; None if the delivery cannot be parsed. `_plan_lookup` reports why."""
    try:
        return hints.parse_delivery(delivery.event, delivery.body)
    except Exception:
        return None


def _run_lookup(lookup: _Lookup) -> Outcome:
    return APPLIED, lookup.sync()


def _finish_or_postpone(fleet: Fleet, held: list[Delivery], step: Callable[[], Outcome | None]) -> None:
    """Run a step and store its outcome; postpone or refuse these deliveries if it fails: see attempts.py."""
    outcome = attempt(step, delivery=held[0].delivery_id)
    with fleet.engine.begin() as conn:
        if isinstance(outcome, Failure) and not outcome.final:
            deliveries.postpone(conn, held, fleet.clock(), fleet.mask.text(outcome.why), outcome.retry_after)
        elif outcome:
            _mark_applied(fleet, conn, held, (REFUSED, outcome.why) if isinstance(outcome, Failure) else outcome)


def _mark_applied(fleet: Fleet, conn: Connection, held: Sequence[Delivery], outcome: Outcome) -> None:
    result, why = outcome
    deliveries.mark_applied(conn, [one.id for one in held], fleet.clock(), result, fleet.mask.text(why))
    for one in held:
        log.info("delivery", kind=one.event, delivery=one.delivery_id, result=result, why=why)


def _plan_lookup(fleet: Fleet, hint: Hint | None, equal: list[Delivery], lookups: _Lookups) -> Outcome | None:
    """Queue the command in these deliveries, and add the lookup that they need to `lookups`; None then. Returns the
    outcome if they need none."""
    newest = equal[-1]
    if hint is None:
        hints.parse_delivery(newest.event, newest.body)  # raises the reason
        return IGNORED, f"{newest.event} is not about a task"
    if _is_ignored(fleet, newest.forge, hint):
        return IGNORED, f"{hint.sender.login} is the bot itself, or a bot that is not in `bots` of fleet.toml"
    full_name = renames.current_name(fleet, newest.forge, hint.repository_id, hint.full_name)
    if hint.comment:
        comment_commands.queue_from_delivery(fleet, newest.forge, replace(hint, full_name=full_name), hint.comment)
    if hint.number and not hint.is_pull:
        sync = partial(issues.sync_issue, fleet, newest.forge, full_name, hint.repository_id, hint.number)
        _add_lookup(lookups, ("issue", 0, hint.number), sync, equal)
        return None
    task = _task_of(fleet, newest.forge, hint, newest.received_at)
    if task is None:
        return _without_task(fleet, hint, newest)
    sync = partial(_sync_pull, fleet, task.id, full_name, hint.number)
    _add_lookup(lookups, ("pull", task.id, hint.number or task.pr_number or 0), sync, equal)
    return None


def _add_lookup(lookups: _Lookups, target: _Target, sync: Callable[[], str], equal: list[Delivery]) -> None:
    before = lookups[target].deliveries if target in lookups else []
    lookups[target] = _Lookup(sync, [*before, *equal])


def _without_task(fleet: Fleet, hint: Hint, newest: Delivery) -> Outcome:
    """Ignore a delivery about a pull request or a branch without a task. Raises Unavailable while one may follow: the
    delivery that makes the task can be applied after the one about its branch."""
    subject = f"pull request {hint.number}" if hint.number else hint.branch or hint.sha or "a tag"
    if _task_may_follow(fleet, hint, newest):
        raise Unavailable(f"{NO_TASK} {subject} yet", TASK_MAY_FOLLOW.total_seconds() / 3)
    return IGNORED, f"{NO_TASK} {subject}"


def _task_may_follow(fleet: Fleet, hint: Hint, newest: Delivery) -> bool:
    is_ours = bool(hint.branch and OUR_BRANCH.fullmatch(hint.branch))
    with fleet.engine.begin() as conn:
        rule = fleet_config.rule_for(conn, newest.forge, hint.full_name) if is_ours else None
    return rule is not None and fleet.clock() - newest.received_at < TASK_MAY_FOLLOW


def _sync_pull(fleet: Fleet, task_pk: int, full_name: str, number: int | None) -> str:
    with fleet.engine.begin() as conn:
        task = tasks.load(conn, task_pk)
    return pull_requests.sync_pull(fleet, task, full_name, number or task.pr_number)


def _is_ignored(fleet: Fleet, forge_name: str, hint: Hint) -> bool:
    """Ignore our own actions and those of bots that are not in `bots`. What they do to branches, pull requests and
    checks is true all the same: an agent may have pushed in our name."""
    return not hint.own_counts and not permissions.is_accepted(fleet, fleet.forges(forge_name), hint.sender)


def _task_of(fleet: Fleet, forge_name: str, hint: Hint, received_at: datetime) -> Task | None:
    """The task of a pull request, a branch or a checked commit. Activity on a branch is recorded."""
    where = (forge_name, hint.repository_id)
    with fleet.engine.begin() as conn:
        if hint.number:
            return tasks.find_by_pull(conn, *where, hint.number, hint.branch or "")
        task = tasks.find_by_branch(conn, *where, hint.branch, hint.sha)
        if task:
            task_details.touch(conn, task.id, received_at)
        return task
