"""Pull requests that others open from a task's branch, and forbidden paths: which ones a task accepts."""

from app.domain.task import State
from tests.conftest import FakeClock
from tests.workshop import WIDGETS, Workshop, signed


def open_pull_into(
    workshop: Workshop, number: int, base: str = "main", by: str = "mallory", title: str = "Mine"
) -> int:
    branch = workshop.task(number).branch
    return int(workshop.say("POST", "/pulls", by, head=branch, base=base, title=title)["number"])


def test_a_pull_request_from_another_branch_is_not_the_tasks_own(workshop: Workshop) -> None:
    """A delivery is only a hint: the branch on the forge decides, not the branch in the delivery."""
    number = workshop.running()
    workshop.say("POST", "/branches", new_branch_name="other")
    workshop.forge.commit("acme/widgets", "alice", "other", {"other.py": "1"}, "Something else")
    workshop.say("POST", "/pulls", head="other", base="main", title="Something else")
    workshop.forge.wait_for_deliveries()
    named = workshop.task(number).branch or ""
    delivery = next(one for one in workshop.forge.deliveries if one.kind == "pull_request/opened")
    raw = delivery.raw.replace(b'"ref": "other"', f'"ref": "{named}"'.encode())
    assert raw != delivery.raw
    workshop.client.post("/webhooks/forgejo", data=raw, headers=signed(raw, "pull_request", "twisted"))
    workshop.converge()
    assert (workshop.task(number).state, workshop.task(number).pr_number) == (State.RUNNING, None)


def test_a_pull_request_by_others_must_keep_off_forbidden_paths_too(workshop: Workshop) -> None:
    workshop.forge.commit(WIDGETS, "alice", "main", {".fleet.toml": 'forbidden_paths = ["total.py"]'}, "Keep off")
    number = workshop.running()
    workshop.push(number)
    workshop.open_pull(number, by="reviewer")
    workshop.converge()
    assert workshop.task(number).state is State.RUNNING
    workshop.finish(number, "2")
    workshop.converge()
    assert (workshop.task(number).state, workshop.task(number).reason) == (State.FAILED, "pull_refused")
    assert "forbids: total.py" in workshop.comments(number)[0]


def test_a_pull_request_into_another_base_is_ignored(workshop: Workshop) -> None:
    number, pull = workshop.in_review()
    workshop.say("POST", "/branches", new_branch_name="release")
    others = open_pull_into(workshop, number, "release")
    workshop.converge()
    workshop.say("PATCH", f"/pulls/{others}", "mallory", state="closed")
    workshop.converge()
    assert (workshop.task(number).state, workshop.task(number).pr_number) == (State.REVIEW_PENDING, pull)
    workshop.merge(open_pull_into(workshop, number, "release", "reviewer"))
    workshop.converge()
    workshop.reconcile()
    assert (workshop.task(number).state, workshop.task(number).pr_number) == (State.REVIEW_PENDING, pull)


def test_a_pull_request_without_write_permission_is_closed_and_replaced(workshop: Workshop, clock: FakeClock) -> None:
    number = workshop.running()
    workshop.push(number)
    others = open_pull_into(workshop, number)
    workshop.converge()
    assert (workshop.task(number).state, workshop.task(number).pr_number) == (State.RUNNING, None)
    workshop.finish(number, "2")
    workshop.converge()
    clock.pass_(10)
    workshop.converge()
    task = workshop.task(number)
    assert (task.state, task.pr_number) == (State.REVIEW_PENDING, max(workshop.pulls()))
    assert task.pr_number != others
    assert workshop.say("GET", f"/pulls/{others}")["state"] == "closed"
    body = workshop.say("GET", f"/pulls/{task.pr_number}")["body"]
    assert body.startswith(f"Closes #{number}\n")


def test_a_pull_request_is_kept_if_the_forge_does_not_tell_the_authors_permission(workshop: Workshop) -> None:
    number = workshop.running()
    workshop.push(number)
    others = open_pull_into(workshop, number)
    for what in ("permission", "assignees"):
        workshop.forge.faults.next("GET", rf"/{what}$", 403, times=20)
    workshop.finish(number, "2")
    workshop.converge()
    assert workshop.say("GET", f"/pulls/{others}")["state"] == "open"
    assert (workshop.task(number).state, workshop.task(number).pr_number) == (State.REVIEW_PENDING, others)


def test_an_accepted_pull_request_stays_if_its_author_loses_write_permission(workshop: Workshop) -> None:
    number = workshop.running()
    workshop.push(number)
    theirs = open_pull_into(workshop, number, by="reviewer")
    workshop.converge()
    workshop.finish(number, "2")
    workshop.converge()
    workshop.forge.collaborate(WIDGETS, "reviewer", "read")
    workshop.say("POST", f"/pulls/{theirs}/reviews", "alice", event="REQUEST_CHANGES", body="Cover it.")
    workshop.converge()
    workshop.start(number)
    workshop.finish(number, "3")
    workshop.converge()
    assert (workshop.task(number).state, workshop.task(number).pr_number) == (State.REVIEW_PENDING, theirs)


def test_a_later_round_that_changes_a_forbidden_path_is_refused(workshop: Workshop) -> None:
    workshop.forge.commit(WIDGETS, "alice", "main", {".fleet.toml": 'forbidden_paths = ["secrets/"]'}, "Keep off")
    number, pull = workshop.in_review()
    assert not workshop.say("GET", f"/pulls/{pull}")["draft"]
    workshop.review(pull)
    workshop.converge()
    workshop.start(number)
    head = workshop.forge.commit(
        WIDGETS, "fleet", workshop.task(number).branch or "", {"secrets/key": "k"}, "Write a key"
    )
    workshop.finish(number, None, pushed=True, head=head, commits=[head])
    workshop.converge()
    assert (workshop.task(number).state, workshop.task(number).reason) == (State.FAILED, "pull_refused")
    assert workshop.say("GET", f"/pulls/{pull}")["title"].startswith("WIP: ")


def test_moving_a_file_out_of_a_forbidden_path_is_refused(workshop: Workshop) -> None:
    text = "a key of many lines\n" * 20
    files: dict[str, str | None] = {".fleet.toml": 'forbidden_paths = ["secrets/"]', "secrets/key": text}
    workshop.forge.commit(WIDGETS, "alice", "main", files, "Keep off")
    number = workshop.running()
    workshop.push(number)
    moved: dict[str, str | None] = {"secrets/key": None, "public/key": text}
    head = workshop.forge.commit(WIDGETS, "fleet", workshop.task(number).branch or "", moved, "Move the key")
    workshop.finish(number, None, pushed=True, head=head, commits=[head])
    workshop.converge()
    assert workshop.task(number).reason == "pull_refused"
    assert "secrets/key" in workshop.comments(number)[0]
