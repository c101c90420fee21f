"""Changes pull requests and sends the webhooks for it: open, review, request reviews."""

from __future__ import annotations

from . import git_commands, issues, webhook_payloads
from .models import Issue, Json, Label, Pull, Repository, Review, ReviewComment, User
from .store import Store


def find(repo: Repository, base: str, head: str, only_open: bool = False) -> Issue | None:
    """The first row with these branches, in any state: that is what Forgejo answers with."""
    for one in repo.issues.values():
        if one.pull and (one.pull.base, one.pull.head) == (base, head) and (one.state == "open" or not only_open):
            return one
    return None


def open_pull(
    store: Store,
    repo: Repository,
    user: User,
    title: str,
    body: str,
    base: str,
    head: str,
    labels: list[Label],
    assignees: list[User],
) -> Issue:
    head_sha, base_sha = git_commands.branch(repo.path, head) or "", git_commands.branch(repo.path, base) or ""
    one = issues.file(store, repo, user, title, body)
    one.labels, one.assignees = labels, assignees
    one.pull = Pull(next(store.pull_ids), base, head, head_sha, git_commands.merge_base(repo.path, base_sha, head_sha))
    git_commands.move(repo.path, f"refs/pull/{one.number}/head", head_sha)
    for label in labels:
        store.note(one, "label", user, "1", label)
    issues.announce(store, repo, one, "opened", user)
    if labels:
        issues.announce(store, repo, one, "label_updated", user, kind="_label")
    if assignees:
        issues.announce(store, repo, one, "assigned", user, kind="_assign")
    return one


def head_moved(store: Store, repo: Repository, one: Issue, doer: User, sha: str) -> None:
    pull = one.pull
    assert pull is not None
    pull.head_sha = sha
    measure(repo, pull)
    git_commands.move(repo.path, f"refs/pull/{one.number}/head", sha)
    for review in pull.reviews:
        review.stale = review.state in ("APPROVED", "REQUEST_CHANGES") and review.commit_id != sha
    store.touch(repo, one)
    store.note(one, "pull_push", doer)
    store.announce(repo, "pull_request_sync", webhook_payloads.pull(store, repo, one, "synchronized", doer))


def measure(repo: Repository, pull: Pull) -> None:
    """Where base and head parted, as of now."""
    base = git_commands.branch(repo.path, pull.base)
    if base:
        pull.merge_base = git_commands.merge_base(repo.path, base, pull.head_sha) or pull.merge_base


def review(
    store: Store,
    repo: Repository,
    one: Issue,
    doer: User,
    state: str,
    body: str,
    notes: list[Json],
    commit_id: str,
) -> Review:
    pull = one.pull
    assert pull is not None
    now = store.touch(repo, one)
    this = Review(
        next(store.review_ids),
        doer,
        state,
        body,
        commit_id or pull.head_sha,
        now,
        official=is_official(store, repo, doer, state),
    )
    this.comments = [inline(store, pull, this, note) for note in notes]
    pull.reviews = [old for old in pull.reviews if not (old.state == "REQUEST_REVIEW" and old.user is doer)]
    pull.reviews.append(this)
    pull.requested = [user for user in pull.requested if user is not doer]
    if state != "PENDING":
        announce_review(store, repo, one, this)
    return this


def is_official(store: Store, repo: Repository, doer: User, state: str) -> bool:
    return state != "COMMENT" and not store.nobody_is_official and store.may(doer, "write", repo)


def answer_note(store: Store, pull: Pull, this: Review, doer: User, path: str, line: int, body: str) -> ReviewComment:
    """Add an answer to a review; every user who can read the repository may."""
    note = inline(store, pull, this, {"path": path, "new_position": line, "body": body})
    note.user = doer
    this.comments.append(note)
    return note


def announce_review(store: Store, repo: Repository, one: Issue, this: Review) -> None:
    store.note(one, "review", this.user, this.body, review_id=this.id)
    store.announce(
        repo,
        webhook_payloads.REVIEW_TYPES[this.state],
        webhook_payloads.pull(store, repo, one, "reviewed", this.user, reviewer=this.user, review=this),
    )


def inline(store: Store, pull: Pull, this: Review, note: Json) -> ReviewComment:
    """A note on a line: new_position is the line's number in the new file, old_position in the old one."""
    line = int(note.get("new_position") or 0) or -int(note.get("old_position") or 0)
    return ReviewComment(
        next(store.comment_ids),
        str(note.get("path", "")),
        line,
        str(note.get("body", "")),
        this.user,
        this.commit_id,
        store.now(),
        f"@@ -{abs(line)} +{abs(line)} @@",
    )


def ask(store: Store, repo: Repository, one: Issue, doer: User, reviewers: list[User]) -> list[Review]:
    pull = one.pull
    assert pull is not None
    made = []
    for reviewer in reviewers:
        if reviewer in pull.requested:
            continue
        pull.requested.append(reviewer)
        now = store.touch(repo, one)
        made.append(
            Review(
                next(store.review_ids),
                reviewer,
                "REQUEST_REVIEW",
                "",
                pull.head_sha,
                now,
                official=store.may(reviewer, "write", repo),
            )
        )
        pull.reviews.append(made[-1])
        store.note(one, "review_request", doer)
        announce_ask(store, repo, one, doer, reviewer, "review_requested")
    return made


def unask(store: Store, repo: Repository, one: Issue, doer: User, reviewers: list[User]) -> None:
    pull = one.pull
    assert pull is not None
    for reviewer in [user for user in reviewers if user in pull.requested]:
        pull.requested.remove(reviewer)
        pull.reviews = [old for old in pull.reviews if not (old.state == "REQUEST_REVIEW" and old.user is reviewer)]
        store.touch(repo, one)
        announce_ask(store, repo, one, doer, reviewer, "review_request_removed")


def announce_ask(store: Store, repo: Repository, one: Issue, doer: User, reviewer: User, action: str) -> None:
    store.announce(
        repo, "pull_request_review_request", webhook_payloads.pull(store, repo, one, action, doer, reviewer=reviewer)
    )
