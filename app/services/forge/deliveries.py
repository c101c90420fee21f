"""Applies deliveries: each is a hint where to look, those about one thing need one look, the forge says what is so."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import structlog
from sqlalchemy import Connection

from app.domain.errors import Refused, Unavailable
from app.domain.task import Task
from app.forgejo import hints
from app.forgejo.hints import Hint
from app.forgejo.webhook_payloads import InvalidPayload
from app.ports import Fleet
from app.services.forge import comment_commands, issues, permissions, pull_requests, renames
from app.store import deliveries, fleet_config, task_details, tasks
from app.store.tables import Row

LONGEST_TURN = timedelta(seconds=20)  # a forge that is slow leaves the rest to the next turn
AT_ONCE = 20  # issues and branches that are looked into before commands are obeyed
MOST_SORTED = 40  # times 50: deliveries whose subject is seen before the first is looked into
NO_TASK = "no task works on"
MATCHED_WITHIN = timedelta(minutes=10)  # how long what was done on a branch waits for the branch's task
OUR_BRANCH = re.compile(r"task/[0-9]{1,18}(-[a-z0-9-]*)?")
log = structlog.get_logger()


def apply_deliveries(fleet: Fleet) -> int:
    """Apply waiting deliveries, those of one issue or branch together and the oldest first, then the commands that they
    brought; returns how many of both were looked at. What the forge cannot answer now waits; what can never be applied
    says why."""
    until, done = fleet.clock() + LONGEST_TURN, _sort(fleet)
    for _ in range(AT_ONCE):
        if fleet.clock() > until:
            break
        with fleet.engine.begin() as conn:
            those = deliveries.take(conn, fleet.clock())
        if not those:
            break
        _apply(fleet, those)
        done += len(those)
    return done + comment_commands.obey(fleet)


def sweep(fleet: Fleet) -> int:
    """Forget deliveries that were applied long ago."""
    with fleet.engine.begin() as conn:
        return deliveries.sweep(conn, fleet.clock() - timedelta(days=fleet.config.keep_deliveries_days))


# --- what deliveries are about ---------------------------------------------------------------------------


def _sort(fleet: Fleet) -> int:
    """See what new deliveries are about, without asking anybody: many that wait for the same thing need one look.
    Returns how many were done with by that."""
    done = 0
    for _ in range(MOST_SORTED):
        with fleet.engine.begin() as conn:
            new = deliveries.unread(conn)
            about = {delivery["id"]: _about(fleet, conn, delivery) for delivery in new}
            deliveries.sort(conn, {id_: name for id_, name in about.items() if name})
        done += sum(not name for name in about.values())
        if not new:
            break
    return done


def _about(fleet: Fleet, conn: Connection, delivery: Row) -> str | None:
    """What a delivery is about; None where that is nothing to us, which is written down."""
    try:
        hint = hints.parse_delivery(delivery["event"], delivery["body"])
    except InvalidPayload as never:
        _done(fleet, conn, [delivery], "refused", str(never))
        return None
    except Exception:
        log.exception("a delivery broke", delivery=delivery["delivery_id"])
        return f"delivery {delivery['id']}"  # it waits alone
    if hint is None:
        _done(fleet, conn, [delivery], "ignored", f"{delivery['event']} says nothing about a task")
    elif hint.is_test:
        _done(fleet, conn, [delivery], "applied", "a test delivery: the hook reaches us")
    return hint.subject if hint and not hint.is_test else None


# --- deliveries about one thing --------------------------------------------------------------------------


@dataclass(frozen=True)
class _Look:
    """A look that must be had at the forge: at an issue, or at the pull request of a task."""

    at: Callable[[], str]
    those: list[Row]


def _apply(fleet: Fleet, those: Sequence[Row]) -> None:
    """Hear the commands among them, then look once at each issue and pull request that they name. Those that say just
    the same are heard as one."""
    same: dict[Hint | int, list[Row]] = {}
    for delivery in those:
        same.setdefault(_hint(delivery) or delivery["id"], []).append(delivery)
    looks: dict[tuple[Any, ...], _Look] = {}
    for hint, alike in same.items():
        _guarded(fleet, alike, partial(_hear, fleet, hint if isinstance(hint, Hint) else None, alike, looks))
    for look in looks.values():
        _guarded(fleet, look.those, lambda look=look: ("applied", look.at()))  # type: ignore[misc]


def _hint(delivery: Row) -> Hint | None:
    """None for one that cannot be read now; whoever hears it will say why."""
    try:
        return hints.parse_delivery(delivery["event"], delivery["body"])
    except Exception:
        return None


def _guarded(fleet: Fleet, those: list[Row], how: Callable[[], tuple[str, str] | None]) -> None:
    """Do it, and write down what became of these deliveries; what cannot be done now waits, and holds up no other."""
    try:
        outcome = how()
    except Unavailable as later:
        return _later(fleet, those, str(later), later.retry_after)
    except (InvalidPayload, Refused) as never:
        outcome = "refused", str(never)
    except Exception as broken:
        log.exception("a delivery broke", delivery=those[0]["delivery_id"])
        return _later(fleet, those, f"it broke here: {broken!r}")
    if outcome:
        with fleet.engine.begin() as conn:
            _done(fleet, conn, those, *outcome)


def _later(fleet: Fleet, those: list[Row], why: str, wait: float | None = None) -> None:
    with fleet.engine.begin() as conn:
        deliveries.postpone(conn, those, fleet.clock(), fleet.mask.text(why), wait)


def _done(fleet: Fleet, conn: Connection, those: Sequence[Row], result: str, why: str) -> None:
    deliveries.applied(conn, [delivery["id"] for delivery in those], fleet.clock(), result, fleet.mask.text(why))
    for delivery in those:
        log.info("delivery", kind=delivery["event"], delivery=delivery["delivery_id"], result=result, why=why)


def _hear(
    fleet: Fleet, hint: Hint | None, alike: list[Row], looks: dict[tuple[Any, ...], _Look]
) -> tuple[str, str] | None:
    """What became of deliveries by their mere words; None where a look must be had, which is put to the others."""
    forge_name = alike[0]["forge"]
    if hint is None:
        hints.parse_delivery(alike[0]["event"], alike[0]["body"])
        return "ignored", f"{alike[0]['event']} says nothing about a task"
    if _is_noise(fleet, forge_name, hint):
        return "ignored", f"{hint.sender.login} is ourselves, or a bot that `bots` in fleet.toml does not name"
    full_name = renames.name_of(fleet, forge_name, hint.repository_id, hint.full_name)
    if hint.comment:
        comment_commands.hear(fleet, forge_name, replace(hint, full_name=full_name))
    if hint.number and not hint.is_pull:
        what: tuple[Any, ...] = ("issue", hint.number)
        at = partial(issues.look_at_issue, fleet, forge_name, full_name, hint.repository_id, hint.number)
    else:
        task = _task_of(fleet, forge_name, hint, alike[-1]["received_at"])
        if task is None:
            about = f"pull request {hint.number}" if hint.number else hint.branch or hint.sha or "a tag"
            if _may_come(fleet, hint, alike[-1]):
                raise Unavailable(f"{NO_TASK} {about} yet", MATCHED_WITHIN.total_seconds() / 3)
            return "ignored", f"{NO_TASK} {about}"
        what = ("pull", task.id, hint.number or task.pr_number)
        at = partial(_look_at_pull, fleet, task.id, full_name, hint.number)
    looks[what] = _Look(at, [*(looks[what].those if what in looks else ()), *alike])
    return None


def _may_come(fleet: Fleet, hint: Hint, newest: Row) -> bool:
    """Whether the task of a branch may only be on its way: what made it may be heard after what was done with it."""
    is_ours = bool(hint.branch and OUR_BRANCH.fullmatch(hint.branch))
    with fleet.engine.begin() as conn:
        rule = fleet_config.rule_for(conn, newest["forge"], hint.full_name) if is_ours else None
    return rule is not None and fleet.clock() - newest["received_at"] < MATCHED_WITHIN


def _look_at_pull(fleet: Fleet, task_pk: int, full_name: str, number: int | None) -> str:
    """The pull request of a task as it is by now."""
    with fleet.engine.begin() as conn:
        task = tasks.load(conn, task_pk)
    return pull_requests.look_at_pull(fleet, task, full_name, number or task.pr_number)


def _is_noise(fleet: Fleet, forge_name: str, hint: Hint) -> bool:
    """Our own echo, and bots that nobody invited. An agent may have pushed or opened a pull request in our name, and
    what bots do to branches and checks is as true as what people do: those are looked at all the same."""
    return not hint.own_counts and not permissions.is_heard(fleet, fleet.forges(forge_name), hint.sender)


def _task_of(fleet: Fleet, forge_name: str, hint: Hint, received_at: datetime) -> Task | None:
    """The task of a pull request, or of a branch on which something goes on: a push, a branch that came or went, checks
    that ended."""
    where = (forge_name, hint.repository_id)
    with fleet.engine.begin() as conn:
        if hint.number:
            return tasks.of_pull(conn, *where, hint.number, hint.branch or "")
        task = tasks.of_branch(conn, *where, hint.branch, hint.sha)
        if task:
            task_details.active(conn, task.id, received_at)
        return task
