"""The fake forge's deliveries have the keys, the order and the signatures of the stored samples."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from app.cli.demo.forge import Delivery, sign
from app.cli.demo.forge.deliveries import go_json
from app.cli.demo.forge.subscriptions import COARSE

from .conftest import WIDGETS, Town

SAMPLES = Path(__file__).parents[1] / "fixtures" / "forgejo" / "payloads"
INDEX = {each["file"]: each for each in json.loads((SAMPLES / "index.json").read_text())}
COMMAND = "issue_comment-created-command.json"


def test_signatures_are_forgejos() -> None:
    command = (SAMPLES / COMMAND).read_bytes()
    assert sign("s3cret", command) == "2d3b3a9383fccab2057143e215150676494574674787cde69dd0d9da4989d36e"
    assert sign("s3cret", b"{}") == "adbde1ce40c89c14215687d5d762a47df6dfaefcfad61e2e86718ffc8498571b"
    assert sign("", b"{}") == ""


@pytest.mark.parametrize("name", sorted(INDEX))
def test_json_is_written_as_the_samples_are_but_for_the_escapes_of_go(name: str) -> None:
    raw = (SAMPLES / name).read_text().strip()
    assert go_json(json.loads(raw)).decode() == raw.replace("<", "\\u003c").replace(">", "\\u003e")
    assert INDEX[name]["x_forgejo_event"] == COARSE[INDEX[name]["x_forgejo_event_type"]]


def test_every_delivery_has_the_keys_of_its_sample(hooked: Town) -> None:
    live_a_full_life(hooked)
    hooked.forge.wait_for_deliveries()
    named = {sample_of(delivery): delivery for delivery in hooked.forge.deliveries}
    seen = {name: delivery for name, delivery in named.items() if name}
    assert set(INDEX) - set(seen) == {"pull_request-opened-agit.json"}
    for name, delivery in seen.items():
        sample = json.loads((SAMPLES / name).read_bytes())
        assert list(delivery.body) == list(sample), name
        assert differences(sample, delivery.body) == [], name
        assert delivery.headers["X-Forgejo-Event"] == INDEX[name]["x_forgejo_event"]
        assert delivery.headers["X-Forgejo-Event-Type"] == INDEX[name]["x_forgejo_event_type"]


def live_a_full_life(town: Town) -> None:
    """One of everything."""
    label = town.forge.add_label("acme/widgets", "agent")
    issue = f"{WIDGETS}/issues/1"
    order = {"title": "One <&>", "body": "b", "labels": [label.id]}
    assert town.alice.post(f"{WIDGETS}/issues", json=order).status_code == 201
    changes: list[dict[str, Any]] = [
        {"title": "New"},
        {"body": "more"},
        {"assignees": ["fleet"]},
        {"assignees": []},
    ]
    for change in [*changes, {"assignees": []}]:
        town.alice.patch(issue, json=change)
    for state in ("closed", "open"):
        town.alice.patch(issue, json={"state": state})
    made = town.alice.post(f"{issue}/comments", json={"body": "/retry"}).json()
    town.fleet.post(f"{issue}/comments", json={"body": "on it"})
    town.alice.patch(f"{WIDGETS}/issues/comments/{made['id']}", json={"body": "/retry please"})
    town.alice.delete(f"{WIDGETS}/issues/comments/{made['id']}")
    town.pushed("task/1-a")
    town.alice.delete(f"{issue}/labels")
    work_on_a_pull(town, label.id)
    town.pushed("task/2-b", name="b.py")
    town.pull("task/2-b")
    [hook] = town.alice.get(f"{WIDGETS}/hooks").json()
    town.alice.post(f"{WIDGETS}/hooks/{hook['id']}/tests")


def work_on_a_pull(town: Town, label: int) -> None:
    number = town.pull("task/1-a", "WIP: hello", "Closes #1")
    pull = f"{WIDGETS}/pulls/{number}"
    town.fleet.patch(pull, json={"title": "hello"})
    town.fleet.post(f"{WIDGETS}/issues/{number}/labels", json={"labels": [label]})
    town.fleet.delete(f"{WIDGETS}/issues/{number}/labels/{label}")
    town.fleet.post(f"{pull}/requested_reviewers", json={"reviewers": ["reviewer"]})
    for event in ("REQUEST_CHANGES", "COMMENT", "APPROVED"):
        town.reviewer.post(f"{pull}/reviews", json={"event": event, "body": "So."})
    town.alice.post(f"{WIDGETS}/issues/{number}/comments", json={"body": "/cancel"})
    for state in ("closed", "open"):
        town.fleet.patch(pull, json={"state": state})
    clone = town.clone()
    clone.git("checkout", "--quiet", "task/1-a")
    clone.commit("more.py", "1\n", "More")
    clone.git("push", "--quiet", "origin", "HEAD")
    clone.git("commit", "--amend", "--quiet", "-m", "Rewritten")
    clone.git("push", "--quiet", "--force", "origin", "HEAD")
    head = town.fleet.get(pull).json()["head"]["sha"]
    for status in ("failure", "success"):
        town.forge.run_ci("acme/widgets", head, status)
    order = {"Do": "merge", "delete_branch_after_merge": True}
    assert town.alice.post(f"{pull}/merge", json=order).status_code == 200


def sample_of(one: Delivery) -> str:
    """Which stored sample this delivery should look like; "" for kinds without one."""
    plain = f"{one.event_type}-{one.action}.json"
    special = {"push": push_sample, "issues": issues_sample, "pull_request": pull_sample}.get(one.event_type)
    if special:
        return special(one.body)
    if one.event_type.startswith("pull_request_review_"):
        kind = one.event_type.rpartition("_")[2]
        return f"pull_request-reviewed-{kind}.json" if one.action == "reviewed" else f"pull_request-{one.action}.json"
    by_bot = one.event_type == "issue_comment" and one.body["sender"]["login"] == "fleet"
    names = {
        "create": "create-branch.json",
        "delete": "delete-branch.json",
        "issue_label": f"issues-{one.action}.json",
        "issue_assign": f"issues-{one.action}.json",
        "issue_comment": f"issue_comment-{one.action}{'-by-bot' if by_bot else ''}.json",
        "pull_request_comment": "issue_comment-created-on-pull.json",
        "pull_request_label": "pull_request-label_updated.json",
        "pull_request_sync": "pull_request-synchronized.json",
        "action_run_failure": "action_run_failure.json",
        "action_run_recover": "action_run_recover.json",
    }
    name = names.get(one.event_type, plain).replace("comment-created.json", "comment-created-command.json")
    return name if name in INDEX else ""


def push_sample(body: dict[str, Any]) -> str:
    if body["before"] == "0" * 40:
        return "push-new-branch.json"
    if body["before"] == body["after"]:
        return "push-test-delivery.json"
    if body["ref"] == "refs/heads/main":
        return "push-merge-to-main.json"
    return "push-force.json" if body["head_commit"]["message"] == "Rewritten\n" else "push-branch.json"


def issues_sample(body: dict[str, Any]) -> str:
    ending = "".join(f"-{key}" for key in body.get("changes", {})) + ("-by-merge" if body["commit_id"] else "")
    return f"issues-{body['action']}{ending}.json"


def pull_sample(body: dict[str, Any]) -> str:
    pull = body["pull_request"]
    ending = {
        "opened": "-draft" if pull["draft"] else "",
        "closed": "-merged" if pull["merged"] else "-unmerged",
        "edited": "-undraft",
    }.get(body["action"], "")
    return f"pull_request-{body['action']}{ending}.json"


def differences(sample: Any, ours: Any, where: str = "") -> list[str]:
    if isinstance(sample, dict) and isinstance(ours, dict):
        found = [f"{where}: {sorted(sample.keys() ^ ours.keys())}"] if sample.keys() != ours.keys() else []
        both = sample.keys() & ours.keys()
        return found + [line for key in both for line in differences(sample[key], ours[key], f"{where}.{key}")]
    if isinstance(sample, list) and isinstance(ours, list):
        return differences(sample[0], ours[0], f"{where}[]") if sample and ours else []
    same = type(sample) is type(ours)
    return [] if same else [f"{where}: {type(sample).__name__} is {type(ours).__name__}"]
