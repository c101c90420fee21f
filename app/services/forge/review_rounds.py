"""Turns reviews and conflicts of a pull request into rounds of work."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import cache, partial
from typing import Any

from app.domain import comment_command
from app.domain.bots import is_accepted
from app.domain.errors import Unavailable
from app.domain.lifecycle import Fact, FactKind
from app.domain.prompt import read_conflict
from app.domain.repository import ForgeRecord
from app.domain.task import Task
from app.domain.visible_text import clean, hidden
from app.ports import Account, Comment, Fleet, Forge, Pull, Review, ReviewComment
from app.services.facts import record_if_news
from app.services.forge import permissions
from app.store import fleet_config, forge_cursors, task_details, views

LONGEST_REVIEW = 20_000


MOST_NOTES = 100


MOST_CONFLICTS = 3  # rounds that do nothing but resolve conflicts, for one task


Event = Mapping[str, Any]


class TooEarly(Unavailable):
    """Something may still be going on there: look again in a moment."""


def apply_reviews(fleet: Fleet, forge: Forge, task: Task, full_name: str, pull: Pull) -> Task:
    """What reviewers, checks and the base say. Each review that asks for changes is one round; several that come
    shortly after each other are one together."""
    with fleet.engine.begin() as conn:
        asked = views.events_of(conn, task.id, (FactKind.CHANGES_REQUESTED, FactKind.CONFLICTED))
        row = fleet_config.forge(conn, forge.name)
    said = [one for one in forge.reviews(full_name, pull.number) if _counts(one, forge, row)]
    reviews = with_rights(forge, full_name, said)
    asking = _unanswered(reviews, asked)
    conflicts, head = _conflicts(fleet, task, pull), _head(forge, task, full_name, pull)
    rounds = sum(event["fact"] == FactKind.CONFLICTED for event in asked)
    news = {
        "approved_by": _approvals(reviews), "ci": forge.check_state(full_name, head), "head": head,
        "conflict": conflicts and rounds >= MOST_CONFLICTS,
    }  # fmt: skip
    before = _last_news(fleet, task)
    if news != before:
        task = record_if_news(fleet, task, Fact(FactKind.PULL_NEWS, news))
    if news["head"] != before["head"]:
        with fleet.engine.begin() as conn:
            task_details.active(conn, task.id, fleet.clock())
    if asking:
        _let_it_be_finished(fleet, task, f"review {asking[-1].id}")
        beside = _beside(forge, full_name, reviews, asking, asked)
        talk = _said_since(forge, row, full_name, pull.number, asked)
        return record_if_news(fleet, task, _round(fleet, forge, task, full_name, pull.number, [*asking, *beside], talk))
    if conflicts and rounds < MOST_CONFLICTS:
        _let_it_be_finished(fleet, task, _conflict(pull))
        return record_if_news(fleet, task, _conflict_round(fleet, task, pull))
    return task


def _head(forge: Forge, task: Task, full_name: str, pull: Pull) -> str:
    """The pull request's newest commit. The forge notes there a moment late what was pushed to the branch."""
    is_late = pull.head != task.head and not pull.flow and forge.branch_head(full_name, pull.branch) == task.head
    return task.head or pull.head if is_late else pull.head


def with_rights(forge: Forge, full_name: str, reviews: Iterable[Review]) -> list[Review]:
    """The reviews, each official if its author may write. The forge's own mark says less: a rule of a protected branch
    may name others, and some forges call nobody's review official where there is no such rule."""
    may = cache(partial(permissions.may_write, forge, full_name))
    return [
        one if one.official or one.state == "COMMENT" else replace(one, official=may(one.author.login))
        for one in reviews
    ]


def _counts(review: Review, forge: Forge, row: ForgeRecord | None) -> bool:
    who = review.author
    return is_accepted(who.login, who.id, who.full_name, forge.bot().id, row.bots if row else ())


def _unanswered(reviews: Sequence[Review], asked: Iterable[Event]) -> list[Review]:
    """Reviews by people who may write that ask for changes, were not answered by a round and not followed by the same
    person's approval, oldest first."""
    answered = _told(asked, "reviews")
    approved = {one.author.id: one.id for one in reviews if one.state == "APPROVED"}
    open_ = [one for one in reviews if one.state == "REQUEST_CHANGES" and one.official and one.id not in answered]
    return sorted((one for one in open_ if one.id > approved.get(one.author.id, 0)), key=lambda one: one.id)


def _beside(
    forge: Forge, full_name: str, reviews: Iterable[Review], asking: Iterable[Review], asked: Iterable[Event]
) -> list[Review]:
    """The reviews that only remark on something, by people who may write, and that no round was told of."""
    told, may = _told(asked, "reviews"), _writers(forge, full_name, asking)
    return [one for one in reviews if one.state == "COMMENT" and one.id not in told and may(one.author)]


def _said_since(
    forge: Forge, row: ForgeRecord | None, full_name: str, number: int, asked: Iterable[Event]
) -> list[Comment]:
    """What people who may write said under the pull request, commands apart, and that no round was told of."""
    told, may, bots = _told(asked, "remarks"), _writers(forge, full_name), row.bots if row else ()
    return [
        one for one in forge.comments(full_name, number)
        if one.id not in told and comment_command.parse_command(one.body) is None
        and is_accepted(one.author.login, one.author.id, one.author.full_name, forge.bot().id, bots)
        and may(one.author)
    ]  # fmt: skip


def _told(asked: Iterable[Event], what: str) -> set[int]:
    """The ids of the reviews, or of the remarks, that rounds were told of."""
    return {id_ for event in asked for id_ in event["detail"].get(what, ())}


def _writers(forge: Forge, full_name: str, known: Iterable[Review] = ()) -> Callable[[Account], bool]:
    """Whether somebody may write; the forge is asked once for each."""
    may = {one.author.id: True for one in known}

    def is_writer(who: Account) -> bool:
        if who.id not in may:
            may[who.id] = permissions.may_write(forge, full_name, who.login)
        return may[who.id]

    return is_writer


def _approvals(reviews: Iterable[Review]) -> list[str]:
    """Who approves of the newest commit: what somebody said last counts."""
    last = {one.author.login: one for one in reviews if one.state != "COMMENT" and one.official}
    return sorted(login for login, one in last.items() if one.state == "APPROVED" and not one.stale)


def _last_news(fleet: Fleet, task: Task) -> Mapping[str, Any]:
    """What was said last of the pull request; a run that offered another commit since then has said that alone."""
    with fleet.engine.begin() as conn:
        news = views.newest_event(conn, task.id, (FactKind.PULL_NEWS,))
        offer = views.newest_event(conn, task.id, (FactKind.PULL_OPENED, FactKind.PULL_REOPENED))
    known = news["detail"] if news else {"approved_by": [], "ci": "", "head": task.head, "conflict": False}
    if offer and (news is None or offer["seq"] > news["seq"]):
        known = {**known, "head": offer["detail"].get("head")}
    return known


def _let_it_be_finished(fleet: Fleet, task: Task, key: str) -> None:
    """Wait until nothing new came for a while, by our own clock."""
    at, quiet = fleet.clock(), timedelta(seconds=fleet.config.review_quiet_secs)
    with fleet.engine.begin() as conn:
        left = (forge_cursors.first(conn, task.id, key, at) + quiet - at).total_seconds()
    if left > 0:
        raise TooEarly(
            f"{task.task_id}: {key} is given {left:.0f} s more, so that what belongs together stays so", left
        )


def _round(
    fleet: Fleet, forge: Forge, task: Task, full_name: str, number: int, reviews: list[Review], said: Sequence[Comment]
) -> Fact:
    """One round for these reviews, by the newest one's id, however often it is heard of; with what was `said` beside
    them."""
    asking = sorted(reviews, key=lambda one: one.id)
    notes = _notes(forge, full_name, number, asking)[:MOST_NOTES]
    texts = [clean(one.text).strip() for one in asking if one.text.strip()]
    texts += [f"{one.author.login} said under the pull request: {clean(one.body).strip()}" for one in said]
    detail = {
        "review": asking[-1].id,
        "reviews": [one.id for one in asking],
        "remarks": [one.id for one in said],
        "by": ", ".join(dict.fromkeys(one.author.login for one in asking if one.state != "COMMENT")),
        "text": "\n\n".join(texts)[:LONGEST_REVIEW],
        "comments": [[note.path, note.line, note.text[:LONGEST_REVIEW]] for note in notes],
        "hidden": list(
            hidden(
                "\n".join([*(one.text for one in asking), *(one.body for one in said), *(one.text for one in notes)])
            )
        ),
        "hunks": [note.hunk[-LONGEST_REVIEW:] for note in notes],
        "until": _confirm_by(fleet, task).isoformat(),
    }
    return Fact(FactKind.CHANGES_REQUESTED, detail, key=f"review {asking[-1].id}")


def _notes(forge: Forge, full_name: str, number: int, asking: Sequence[Review]) -> list[ReviewComment]:
    """The notes of these reviews, with what other people who may write answered to them. Anybody may answer, and what
    others say is not told to an agent."""
    found = [note for one in asking if one.comments for note in forge.review_comments(full_name, number, one.id)]
    may = _writers(forge, full_name, asking)
    return [note for note in found if note.author.id != forge.bot().id and may(note.author)]


def _conflicts(fleet: Fleet, task: Task, pull: Pull) -> bool:
    """Whether the forge says that it cannot be merged. It says so too for a moment after each change, while it works
    that out: what it takes back was never so."""
    if pull.mergeable is False and not pull.draft:
        return True
    with fleet.engine.begin() as conn:
        forge_cursors.forget(conn, task.id, _conflict(pull))
    return False


def _conflict(pull: Pull) -> str:
    return f"conflict {pull.head}"


def _conflict_round(fleet: Fleet, task: Task, pull: Pull) -> Fact:
    with fleet.engine.begin() as conn:
        goal = views.brief(conn, task.id)["title"]
    detail = {
        "by": "the forge", "text": read_conflict(goal, pull.base, task.branch or ""), "comments": [], "head": pull.head,
        "base": pull.base, "until": _confirm_by(fleet, task).isoformat(),
    }  # fmt: skip
    return Fact(FactKind.CONFLICTED, detail, key=_conflict(pull))


def _confirm_by(fleet: Fleet, task: Task) -> datetime:
    """When a round must have begun: a host is told at once, an agent when it beats."""
    patience = fleet.config.confirm_secs if task.host_id else fleet.config.offline_after_secs
    return fleet.clock() + timedelta(seconds=patience)
