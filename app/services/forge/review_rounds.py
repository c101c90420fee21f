"""Turns reviews and conflicts of a pull request into rounds of work."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from functools import cache, partial

from app.domain import bots, comment_command
from app.domain.errors import Unavailable
from app.domain.event import Event
from app.domain.forge_messages import PullNews
from app.domain.lifecycle import Fact, FactKind
from app.domain.prompt import read_conflict
from app.domain.task import Task
from app.domain.visible_text import clean, hidden
from app.ports import Account, Comment, Fleet, Forge, Pull, Review, ReviewComment
from app.services.facts import record_if_news
from app.services.forge import permissions
from app.store import events, fleet_config, forge_cursors, task_details

LONGEST_REVIEW = 20_000  # characters of a text or a hunk
MOST_COMMENTS = 100  # on lines, in one round
MOST_CONFLICTS = 3  # rounds per task that only resolve conflicts


class TooEarly(Unavailable):
    """More of a review may follow: try again in a moment."""


@dataclass(frozen=True)
class _Pull:
    """A task's pull request, where it is, and the rounds so far (`rounds`, their events)."""

    fleet: Fleet
    forge: Forge
    task: Task
    full_name: str
    pull: Pull
    rounds: list[Event]
    invited: Sequence[str]  # logins of bots that count

    def counts(self, account: Account) -> bool:
        """Whether the words of an account count: not our own, and not those of an uninvited bot."""
        ours = self.forge.bot().id
        return bots.is_accepted(account.login, account.id, account.full_name, ours, self.invited)

    def handled(self, what: str) -> set[int]:
        """The ids of the `reviews`, or of the `remarks`, that a round has handled."""
        return {id_ for event in self.rounds for id_ in event.detail.get(what, ())}


def apply_reviews(fleet: Fleet, forge: Forge, task: Task, full_name: str, pull: Pull) -> Task:
    """Record what reviewers, checks and the base say, and begin a round if one is due.

    A review that asks for changes is one round; several within FLEET_REVIEW_QUIET_SECS are one together. Raises
    TooEarly during that time.
    """
    with fleet.engine.begin() as conn:
        rounds = events.of_kinds(conn, task.id, (FactKind.CHANGES_REQUESTED, FactKind.CONFLICTED))
        record = fleet_config.forge(conn, forge.name)
    this = _Pull(fleet, forge, task, full_name, pull, list(rounds), record.bots if record else ())
    accepted = [review for review in forge.reviews(full_name, pull.number) if this.counts(review.author)]
    reviews = with_permissions(forge, full_name, accepted)
    has_conflict = _has_conflict(fleet, task, pull)
    conflict_rounds = sum(event.kind == FactKind.CONFLICTED for event in rounds)
    task = _record_news(this, reviews, has_conflict and conflict_rounds >= MOST_CONFLICTS)
    asking = _unanswered(this, reviews)
    if asking:
        _wait_until_quiet(fleet, task, f"review {asking[-1].id}")
        return record_if_news(fleet, task, _review_round(this, reviews, asking))
    if has_conflict and conflict_rounds < MOST_CONFLICTS:
        _wait_until_quiet(fleet, task, _conflict_key(pull))
        return record_if_news(fleet, task, _conflict_round(fleet, task, pull))
    return task


# --- news for the status comment -------------------------------------------------------------------------


def _record_news(this: _Pull, reviews: Sequence[Review], conflict: bool) -> Task:
    """Record approvals, checks and the newest commit, if they changed."""
    head = _newest_commit(this)
    news = PullNews(_approvals(reviews), this.forge.check_state(this.full_name, head), head, conflict)
    before, task = _last_news(this), this.task
    if news != before:
        task = record_if_news(this.fleet, task, Fact(FactKind.PULL_NEWS, asdict(news)))
    if news.head != before.head:
        with this.fleet.engine.begin() as conn:
            task_details.touch(conn, task.id, this.fleet.clock())
    return task


def _newest_commit(this: _Pull) -> str:
    """The pull request's newest commit. The forge shows a push to the branch a moment late."""
    task, pull = this.task, this.pull
    is_late = (
        pull.head != task.head and not pull.flow and this.forge.branch_head(this.full_name, pull.branch) == task.head
    )
    return task.head or pull.head if is_late else pull.head


def _approvals(reviews: Iterable[Review]) -> list[str]:
    """Who approves the newest commit. Only the last review of each person counts."""
    last = {one.author.login: one for one in reviews if one.state != "COMMENT" and one.official}
    return sorted(login for login, one in last.items() if one.state == "APPROVED" and not one.stale)


def _last_news(this: _Pull) -> PullNews:
    """The news that was recorded last. A run that opened the pull request since then has changed its head."""
    with this.fleet.engine.begin() as conn:
        news = events.newest(conn, this.task.id, FactKind.PULL_NEWS)
        offer = events.newest(conn, this.task.id, FactKind.PULL_OPENED, FactKind.PULL_REOPENED)
    known = PullNews.from_json(news.detail) if news else PullNews([], "", this.task.head, False)
    if offer and (news is None or offer.seq > news.seq):
        known = replace(known, head=offer.detail.get("head"))
    return known


# --- which reviews count ---------------------------------------------------------------------------------


def with_permissions(forge: Forge, full_name: str, reviews: Iterable[Review]) -> list[Review]:
    """The reviews, each `official` if its author has write permission.

    The forge's own mark says less: a protected branch may name other reviewers, and some forges set it for those only.
    """
    may_write = cache(partial(permissions.may_write, forge, full_name))
    return [
        one if one.official or one.state == "COMMENT" else replace(one, official=may_write(one.author.login))
        for one in reviews
    ]


def _unanswered(this: _Pull, reviews: Sequence[Review]) -> list[Review]:
    """Reviews by people with write permission that ask for changes, oldest first. Left out are those that a round has
    handled, and those that their author's later approval takes back."""
    handled = this.handled("reviews")
    approved = {one.author.id: one.id for one in reviews if one.state == "APPROVED"}
    asking = [one for one in reviews if one.state == "REQUEST_CHANGES" and one.official and one.id not in handled]
    return sorted((one for one in asking if one.id > approved.get(one.author.id, 0)), key=lambda one: one.id)


def _new_remarks(this: _Pull, reviews: Iterable[Review], asking: Iterable[Review]) -> list[Review]:
    """Reviews without a verdict, by people with write permission, that no round has handled."""
    handled, may_write = this.handled("reviews"), _write_check(this, asking)
    return [one for one in reviews if one.state == "COMMENT" and one.id not in handled and may_write(one.author)]


def _new_comments(this: _Pull) -> list[Comment]:
    """Comments on the pull request by people with write permission that no round has handled, commands left out."""
    handled, may_write = this.handled("remarks"), _write_check(this)
    return [
        one for one in this.forge.comments(this.full_name, this.pull.number)
        if one.id not in handled and comment_command.parse_command(one.body) is None
        and this.counts(one.author) and may_write(one.author)
    ]  # fmt: skip


def _comments_on_lines(this: _Pull, reviews: Sequence[Review]) -> list[ReviewComment]:
    """The comments of these reviews and the replies to them. Every reader may reply, so only those by people with write
    permission are kept."""
    found = [
        comment for one in reviews if one.comments
        for comment in this.forge.review_comments(this.full_name, this.pull.number, one.id)
    ]  # fmt: skip
    may_write = _write_check(this, reviews)
    return [one for one in found if one.author.id != this.forge.bot().id and may_write(one.author)]


def _write_check(this: _Pull, known: Iterable[Review] = ()) -> Callable[[Account], bool]:
    """Checks write permission, with one call of the forge per account. Authors of `known` have it."""
    may = {one.author.id: True for one in known}

    def may_write(account: Account) -> bool:
        if account.id not in may:
            may[account.id] = permissions.may_write(this.forge, this.full_name, account.login)
        return may[account.id]

    return may_write


# --- rounds ----------------------------------------------------------------------------------------------


def _wait_until_quiet(fleet: Fleet, task: Task, key: str) -> None:
    """Raises TooEarly until FLEET_REVIEW_QUIET_SECS have passed since `key` was first seen, by our own clock."""
    at, quiet = fleet.clock(), timedelta(seconds=fleet.config.review_quiet_secs)
    with fleet.engine.begin() as conn:
        left = (forge_cursors.first_seen_at(conn, task.id, key, at) + quiet - at).total_seconds()
    if left > 0:
        raise TooEarly(f"{task.task_id}: waits {left:.0f} s for more of {key}", left)


def _review_round(this: _Pull, reviews: Sequence[Review], asking: Sequence[Review]) -> Fact:
    """One round for the reviews that ask for changes and all that was said since the last round. The id of the newest
    review identifies it."""
    handled = sorted([*asking, *_new_remarks(this, reviews, asking)], key=lambda one: one.id)
    comments, on_lines = _new_comments(this), _comments_on_lines(this, handled)[:MOST_COMMENTS]
    texts = [clean(one.text).strip() for one in handled if one.text.strip()]
    texts += [f"{one.author.login} commented on the pull request: {clean(one.body).strip()}" for one in comments]
    originals = [*(one.text for one in handled), *(one.body for one in comments), *(one.text for one in on_lines)]
    detail = {
        "review": handled[-1].id,
        "reviews": [one.id for one in handled],
        "remarks": [one.id for one in comments],
        "by": ", ".join(dict.fromkeys(one.author.login for one in handled if one.state != "COMMENT")),
        "text": "\n\n".join(texts)[:LONGEST_REVIEW],
        "comments": [[one.path, one.line, one.text[:LONGEST_REVIEW]] for one in on_lines],
        "hidden": list(hidden("\n".join(originals))),
        "hunks": [one.hunk[-LONGEST_REVIEW:] for one in on_lines],
        "until": _start_deadline(this.fleet, this.task).isoformat(),
    }
    return Fact(FactKind.CHANGES_REQUESTED, detail, key=f"review {handled[-1].id}")


def _has_conflict(fleet: Fleet, task: Task, pull: Pull) -> bool:
    """Whether the forge says that the pull request cannot be merged. It also says so for a moment after each change,
    while it computes the answer; such a conflict is forgotten."""
    if pull.mergeable is False and not pull.draft:
        return True
    with fleet.engine.begin() as conn:
        forge_cursors.forget_first_seen(conn, task.id, _conflict_key(pull))
    return False


def _conflict_key(pull: Pull) -> str:
    return f"conflict {pull.head}"


def _conflict_round(fleet: Fleet, task: Task, pull: Pull) -> Fact:
    with fleet.engine.begin() as conn:
        goal = task_details.get(conn, task.id).title
    detail = {
        "by": "the forge", "text": read_conflict(goal, pull.base, task.branch or ""), "comments": [], "head": pull.head,
        "base": pull.base, "until": _start_deadline(fleet, task).isoformat(),
    }  # fmt: skip
    return Fact(FactKind.CONFLICTED, detail, key=_conflict_key(pull))


def _start_deadline(fleet: Fleet, task: Task) -> datetime:
    """When a round must have started: hosts start at once, agents learn of it with their next heartbeat."""
    secs = fleet.config.confirm_secs if task.host_id else fleet.config.offline_after_secs
    return fleet.clock() + timedelta(seconds=secs)
