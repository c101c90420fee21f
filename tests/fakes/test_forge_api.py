"""The fake forge's REST API refuses, drops, repeats and pages as Forgejo does."""

from __future__ import annotations

import base64

import httpx
import pytest

from app.cli.demo.forge.contract import Contract

from .checked_forge import DESCRIPTION
from .conftest import WIDGETS, Town


def test_without_a_good_token_nobody_is_anybody(town: Town) -> None:
    assert httpx.get(f"{town.forge.url}/api/v1/user").status_code == 401
    assert town.forge.client("wrong").get("/user").status_code == 401
    assert httpx.get(f"{town.forge.url}/api/v1/user", auth=("x", town.tokens["fleet"])).json()["login"] == "fleet"
    bearer = {"Authorization": f"Bearer {town.tokens['alice']}"}
    assert httpx.get(f"{town.forge.url}/api/v1/user", headers=bearer).json()["login"] == "alice"


def test_a_private_repository_is_not_there_for_strangers(town: Town) -> None:
    town.forge.repository("acme/widgets").private = True
    assert town.stranger().get(WIDGETS).status_code == 404
    assert town.fleet.get(WIDGETS).json()["permissions"] == {"admin": False, "push": True, "pull": True}


def test_a_second_open_pull_request_of_the_same_branches_is_a_conflict(town: Town) -> None:
    town.pushed("task/1-a")
    number = town.pull("task/1-a")
    order = {"title": "Again", "head": "acme:task/1-a", "base": "main"}
    assert town.fleet.post(f"{WIDGETS}/pulls", json=order).status_code == 409
    assert town.fleet.get(f"{WIDGETS}/pulls/main/task%2F1-a").json()["number"] == number
    town.fleet.patch(f"{WIDGETS}/pulls/{number}", json={"state": "closed"})
    assert town.fleet.get(f"{WIDGETS}/pulls/main/task%2F1-a").json()["state"] == "closed"
    assert town.fleet.post(f"{WIDGETS}/pulls", json=order).status_code == 201


@pytest.mark.parametrize(("head", "base", "status"), [("main", "main", 422), ("none", "main", 404)])
def test_no_pull_request_without_two_branches(town: Town, head: str, base: str, status: int) -> None:
    order = {"title": "No", "head": head, "base": base}
    assert town.fleet.post(f"{WIDGETS}/pulls", json=order).status_code == status


def test_label_names_are_not_unique_and_unknown_ones_are_dropped(town: Town) -> None:
    for _ in range(2):
        town.alice.post(f"{WIDGETS}/labels", json={"name": "agent", "color": "#0e8a16"})
    assert [each["name"] for each in town.alice.get(f"{WIDGETS}/labels").json()] == ["agent", "agent"]
    town.alice.post(f"{WIDGETS}/issues", json={"title": "One"})
    answer = town.alice.post(f"{WIDGETS}/issues/1/labels", json={"labels": ["agent", "unheard-of"]})
    assert (answer.status_code, [each["name"] for each in answer.json()]) == (200, ["agent"])
    assert town.alice.delete(f"{WIDGETS}/issues/1/labels/unheard-of").status_code == 422
    assert town.alice.delete(f"{WIDGETS}/issues/1/labels/agent").status_code == 204


def test_exclusive_labels_push_each_other_out(town: Town) -> None:
    for name in ("agent/working", "agent/review"):
        town.forge.add_label("acme/widgets", name, exclusive=True)
    town.alice.post(f"{WIDGETS}/issues", json={"title": "One"})
    for name in ("agent/working", "agent/review"):
        answer = town.alice.post(f"{WIDGETS}/issues/1/labels", json={"labels": [name]})
    assert [each["name"] for each in answer.json()] == ["agent/review"]


def test_who_may_not_write_sets_no_labels(town: Town) -> None:
    label = town.forge.add_label("acme/widgets", "agent")
    stranger = town.stranger()
    made = stranger.post(f"{WIDGETS}/issues", json={"title": "Please", "labels": [label.id]})
    assert (made.status_code, made.json()["labels"]) == (201, [])
    assert stranger.post(f"{WIDGETS}/issues/1/labels", json={"labels": [label.id]}).status_code == 403


def test_the_timeline_says_who_set_which_label(town: Town) -> None:
    label = town.forge.add_label("acme/widgets", "agent")
    town.alice.post(f"{WIDGETS}/issues", json={"title": "One", "labels": [label.id]})
    town.reviewer.delete(f"{WIDGETS}/issues/1/labels/{label.id}")
    lines = town.fleet.get(f"{WIDGETS}/issues/1/timeline").json()
    told = [(line["type"], line["user"]["login"], line["body"], line["label"]["name"]) for line in lines]
    assert told == [("label", "alice", "1", "agent"), ("label", "reviewer", "", "agent")]


def test_comments_come_all_at_once_and_only_their_author_or_a_writer_edits_them(town: Town) -> None:
    town.alice.post(f"{WIDGETS}/issues", json={"title": "One"})
    for number in range(60):
        made = town.fleet.post(f"{WIDGETS}/issues/1/comments", json={"body": f"{number}"}).json()
    assert len(town.alice.get(f"{WIDGETS}/issues/1/comments").json()) == 60
    late = {"since": "2999-01-01T00:00:00Z"}
    assert town.alice.get(f"{WIDGETS}/issues/1/comments", params=late).json() == []
    here = f"{WIDGETS}/issues/comments/{made['id']}"
    assert town.stranger().patch(here, json={"body": "mine now"}).status_code == 403
    assert town.fleet.patch(here, json={"body": "better"}).json()["body"] == "better"
    assert [town.fleet.post(f"{here}/reactions", json={"content": "eyes"}).status_code for _ in "12"] == [
        201,
        200,
    ]
    assert town.fleet.delete(here).status_code == 204
    assert town.fleet.patch(here, json={"body": "gone"}).status_code == 404


def test_lists_come_in_pages_of_fifty_at_most(town: Town) -> None:
    for number in range(55):
        town.alice.post(f"{WIDGETS}/issues", json={"title": f"Issue {number}"})
    page = town.alice.get(f"{WIDGETS}/issues", params={"limit": 1000, "state": "all"})
    assert (len(page.json()), page.headers["X-Total-Count"]) == (50, "55")
    rest = town.alice.get(page.links["next"]["url"])
    assert [each["number"] for each in rest.json()] == [5, 4, 3, 2, 1]
    assert "next" not in rest.links


def test_issues_are_found_by_state_label_kind_and_time(town: Town) -> None:
    label = town.forge.add_label("acme/widgets", "agent")
    for labels in ([], [label.id]):
        town.alice.post(f"{WIDGETS}/issues", json={"title": "One", "labels": labels})
    town.alice.patch(f"{WIDGETS}/issues/1", json={"state": "closed"})
    found = {
        name: [each["number"] for each in town.alice.get(f"{WIDGETS}/issues", params={name: value}).json()]
        for name, value in (
            ("state", "closed"),
            ("labels", "agent"),
            ("type", "pulls"),
            ("since", "2999-01-01T00:00:00Z"),
        )
    }
    assert found == {"state": [1], "labels": [2], "type": [], "since": []}
    assert town.alice.get(f"{WIDGETS}/issues", params={"since": "2999-01-01"}).status_code == 422


def test_only_admins_ask_about_the_rights_of_others(town: Town) -> None:
    path = f"{WIDGETS}/collaborators/reviewer/permission"
    assert town.alice.get(path).json()["permission"] == "write"
    assert town.reviewer.get(path).json()["permission"] == "write"
    assert town.fleet.get(path).status_code == 403
    town.forge.store.anyone_may_ask_permissions = True
    assert town.fleet.get(path).status_code == 200


def test_statuses_add_up_and_the_latest_of_a_context_wins(town: Town) -> None:
    sha = town.pushed("task/1-a")
    for state in ("pending", "success"):
        order = {"state": state, "context": "agent-fleet/task"}
        assert town.fleet.post(f"{WIDGETS}/statuses/{sha}", json=order).status_code == 201
    town.forge.run_ci("acme/widgets", sha, "failure")
    combined = town.fleet.get(f"{WIDGETS}/commits/task%2F1-a/status").json()
    assert (combined["state"], combined["total_count"], combined["sha"]) == ("failure", 2, sha)
    assert len(town.fleet.get(f"{WIDGETS}/commits/{sha}/statuses").json()) == 3
    assert town.stranger().post(f"{WIDGETS}/statuses/{sha}", json={"state": "success"}).status_code == 403


def test_branches_and_files(town: Town) -> None:
    order = {"new_branch_name": "task/1-a", "old_ref_name": "main"}
    assert [town.fleet.post(f"{WIDGETS}/branches", json=order).status_code for _ in "12"] == [201, 409]
    content = base64.b64encode(b"hello\n").decode()
    made = town.fleet.post(f"{WIDGETS}/contents/hello.txt", json={"content": content, "branch": "task/1-a"})
    assert made.status_code == 201
    read = town.fleet.get(f"{WIDGETS}/contents/hello.txt", params={"ref": "task/1-a"}).json()
    assert base64.b64decode(read["content"]) == b"hello\n"
    assert town.fleet.get(f"{WIDGETS}/contents/hello.txt").status_code == 404
    assert town.fleet.get(f"{WIDGETS}/branches/task/1-a").json()["name"] == "task/1-a"
    assert town.fleet.delete(f"{WIDGETS}/branches/task%2F1-a").status_code == 204
    assert town.fleet.get(f"{WIDGETS}/branches/task%2F1-a").status_code == 404


@pytest.mark.parametrize("style", ["merge", "squash", "rebase", "rebase-merge", "fast-forward-only"])
def test_every_way_to_merge(town: Town, style: str) -> None:
    town.pushed("task/1-a")
    if style != "fast-forward-only":
        town.forge.commit("acme/widgets", "alice", "main", {"other.txt": "meanwhile\n"}, "Meanwhile")
    number = town.pull("task/1-a")
    done = town.alice.post(f"{WIDGETS}/pulls/{number}/merge", json={"Do": style})
    assert (done.status_code, done.text) == (200, "")
    assert town.fleet.get(f"{WIDGETS}/contents/hello.py").status_code == 200
    assert town.fleet.get(f"{WIDGETS}/pulls/{number}/merge").status_code == 204


def test_what_cannot_be_merged(town: Town) -> None:
    town.pushed("task/1-a", name="README.md", content="mine\n")
    number = town.pull("task/1-a", "WIP: hello")
    here = f"{WIDGETS}/pulls/{number}"
    assert town.alice.post(f"{here}/merge", json={"Do": "merge"}).status_code == 405
    assert town.stranger().post(f"{here}/merge", json={"Do": "merge"}).status_code == 405
    assert not town.fleet.patch(here, json={"title": "hello"}).json()["draft"]
    town.forge.commit("acme/widgets", "alice", "main", {"README.md": "theirs\n"}, "Meanwhile")
    assert not town.fleet.get(here).json()["mergeable"]
    assert town.alice.post(f"{here}/merge", json={"Do": "merge"}).status_code == 409


def test_nobody_approves_their_own(town: Town) -> None:
    town.pushed("task/1-a")
    number = town.pull("task/1-a")
    mine = town.fleet.post(f"{WIDGETS}/pulls/{number}/reviews", json={"event": "APPROVED"})
    assert mine.status_code == 422
    asked = town.fleet.post(f"{WIDGETS}/pulls/{number}/requested_reviewers", json={"reviewers": ["reviewer"]})
    assert (asked.status_code, asked.json()[0]["state"]) == (201, "REQUEST_REVIEW")
    town.reviewer.post(f"{WIDGETS}/pulls/{number}/reviews", json={"event": "APPROVED"})
    [review] = town.fleet.get(f"{WIDGETS}/pulls/{number}/reviews").json()
    assert (review["state"], review["official"]) == ("APPROVED", True)
    assert town.fleet.get(f"{WIDGETS}/pulls/{number}").json()["requested_reviewers"] == []


def test_what_a_pull_request_changes(town: Town) -> None:
    sha = town.pushed("task/1-a")
    number = town.pull("task/1-a")
    assert [each["sha"] for each in town.fleet.get(f"{WIDGETS}/pulls/{number}/commits").json()] == [sha]
    assert [each["filename"] for each in town.fleet.get(f"{WIDGETS}/pulls/{number}/files").json()] == ["hello.py"]
    assert "+print('hello')" in town.fleet.get(f"{WIDGETS}/pulls/{number}.diff").text


def test_the_contract_sees_what_forgejo_would_not_understand() -> None:
    contract = Contract(DESCRIPTION)
    contract.check("POST", f"{WIDGETS}/pulls", {"title": "x", "draft": True}, 200, {"number": 1, "nope": 2})
    contract.check("GET", f"{WIDGETS}/nothing", None, 200, None)
    contract.check("GET", f"{WIDGETS}/pulls/1", None, 200, {"head": {"color": 3}})
    assert len(contract.violations) == 4
    assert "no field draft" in contract.violations[0]
