"""The fake forge tells the whole story: an issue, a branch, a pull request, two rounds of review, a merge."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.patience import patient, wait_until

from .conftest import WIDGETS, Receiver, Town

ROOT = Path(__file__).parents[2]


def test_an_issue_becomes_a_merged_pull_request(hooked: Town) -> None:
    label = hooked.alice.post(f"{WIDGETS}/labels", json={"name": "agent:code", "color": "#0e8a16"}).json()
    issue = {"title": "Fix off-by-one in total()", "body": "It is off by one.", "labels": [label["id"]]}
    assert hooked.alice.post(f"{WIDGETS}/issues", json=issue).status_code == 201
    assert hooked.sent() == ["issues/opened", "issue_label/label_updated"]

    clone = hooked.clone()
    clone.git("checkout", "--quiet", "-b", "task/1-fix-off-by-one")
    core = (clone.path / "widgets/core.py").read_text()
    clone.commit("widgets/core.py", core.replace("len(prices) - 1", "len(prices)"), "Fix off-by-one in total()")
    clone.git("push", "--quiet", "origin", "HEAD")
    assert hooked.sent() == ["create", "push"]

    number = hooked.pull("task/1-fix-off-by-one", "Fix off-by-one in total()", "Closes #1")
    assert hooked.sent() == ["pull_request/opened"]

    note = {"path": "widgets/core.py", "new_position": 7, "body": "Enumerate instead."}
    review = {"event": "REQUEST_CHANGES", "body": "Cover the empty list.", "comments": [note]}
    made = hooked.reviewer.post(f"{WIDGETS}/pulls/{number}/reviews", json=review).json()
    notes = hooked.fleet.get(f"{WIDGETS}/pulls/{number}/reviews/{made['id']}/comments").json()
    assert (made["state"], made["official"], notes[0]["position"]) == ("REQUEST_CHANGES", True, 7)
    hooked.forge.wait_for_deliveries()
    [delivery] = hooked.forge.deliveries
    assert (delivery.event, delivery.event_type) == ("pull_request_rejected", "pull_request_review_rejected")
    assert delivery.body["review"] == {
        "type": "pull_request_review_rejected",
        "content": "Cover the empty list.",
    }
    hooked.sent()

    head = clone.commit("tests/test_empty.py", "# nothing\n", "Cover the empty list")
    clone.git("push", "--quiet", "origin", "HEAD")
    assert hooked.sent() == ["push", "pull_request_sync/synchronized"]
    assert hooked.fleet.get(f"{WIDGETS}/pulls/{number}/reviews").json()[0]["stale"]

    late = hooked.alice.post(f"{WIDGETS}/pulls/{number}/merge", json={"Do": "merge", "head_commit_id": "0" * 40})
    assert late.status_code == 409
    order = {"Do": "merge", "head_commit_id": head, "delete_branch_after_merge": True}
    assert hooked.alice.post(f"{WIDGETS}/pulls/{number}/merge", json=order).status_code == 200
    hooked.forge.wait_for_deliveries()
    closed = hooked.forge.deliveries[2]
    assert hooked.sent() == ["push", "pull_request/closed", "issues/closed", "delete"]

    pull = hooked.fleet.get(f"{WIDGETS}/pulls/{number}").json()
    assert (pull["merged"], pull["state"]) == (True, "closed")
    assert (pull["head"]["ref"], pull["head"]["label"]) == (
        f"refs/pull/{number}/head",
        "task/1-fix-off-by-one",
    )
    assert closed.body["commit_id"] == pull["merge_commit_sha"]
    assert hooked.alice.get(f"{WIDGETS}/issues/1").json()["state"] == "closed"
    assert hooked.alice.post(f"{WIDGETS}/pulls/{number}/merge", json={"Do": "merge"}).status_code == 405
    fixed = hooked.clone("after", hooked.tokens["alice"])
    assert subprocess.run(["make", "test"], cwd=fixed.path, capture_output=True, check=False).returncode == 0


def test_the_demo_as_given_fails_its_own_test(town: Town) -> None:
    done = subprocess.run(["make", "test"], cwd=town.clone().path, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "test_adds_every_price" in done.stderr


def test_pushing_a_fix_of_an_issue_to_main_closes_it(hooked: Town) -> None:
    hooked.alice.post(f"{WIDGETS}/issues", json={"title": "Broken"})
    clone = hooked.clone()
    sha = clone.commit("README.md", "# fixed\n", "Say it right\n\nFixes #1")
    clone.git("push", "--quiet", "origin", "main")
    assert hooked.sent(forget=False) == ["issues/opened", "push", "issues/closed"]
    assert hooked.forge.deliveries[-1].body["commit_id"] == sha


def test_deleting_a_branch_closes_its_pull_request(hooked: Town) -> None:
    hooked.pushed("task/9-gone")
    number = hooked.pull("task/9-gone")
    hooked.sent()
    hooked.clone("other").git("push", "--quiet", "origin", ":task/9-gone")
    assert hooked.sent() == ["delete", "pull_request/closed"]
    assert not hooked.fleet.get(f"{WIDGETS}/pulls/{number}").json()["merged"]


def test_the_forge_comes_back_on_its_port_with_all_it_knew(town: Town) -> None:
    town.alice.post(f"{WIDGETS}/issues", json={"title": "Still here"})
    url = town.forge.url
    town.forge.stop()
    town.forge.start()
    assert town.forge.url == url
    assert town.forge.client(town.tokens["alice"]).get(f"{WIDGETS}/issues/1").json()["title"] == "Still here"


def test_it_runs_as_a_process_and_stops_when_told(tmp_path: Path, receiver: Receiver) -> None:
    state_file = tmp_path / "state.json"
    command = [sys.executable, "-m", "app.cli.demo.forge", "--root", str(tmp_path / "root")]
    forge = subprocess.Popen(
        [*command, "--state-file", str(state_file)], cwd=ROOT, stdout=subprocess.PIPE, env=os.environ
    )
    try:
        assert forge.stdout is not None
        url = forge.stdout.readline().decode().strip()
        state = json.loads(state_file.read_text())
        assert (url, state_file.stat().st_mode & 0o777) == (state["url"], 0o600)
        assert set(state["users"]) == {"alice", "reviewer", "fleet"}
    finally:
        forge.send_signal(signal.SIGTERM)
    assert forge.wait(patient(10)) == 0


def test_it_ends_with_its_parent(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys; p = subprocess.Popen(sys.argv[1:], stdout=subprocess.PIPE);"
        "p.stdout.readline(); print(p.pid)"
    )
    command = [sys.executable, "-m", "app.cli.demo.forge", "--root", str(tmp_path / "root")]
    parent = [sys.executable, "-c", code, *command, "--state-file", str(tmp_path / "state.json")]
    pid = int(subprocess.run(parent, cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout)
    if sys.platform.startswith("linux"):
        wait_until(lambda: has_ended(pid), "the forge has ended with its parent")
    else:
        os.kill(pid, signal.SIGTERM)


def has_ended(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status")
    return not status.exists() or "State:\tZ" in status.read_text()
