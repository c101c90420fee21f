"""Issues become tasks: which ones are wanted, by whom, and with which title, priority and labels."""

from typing import Any

import pytest

from app.domain.task import Mode, Priority, State
from app.services.forge import reconcile
from tests import builders
from tests.workshop import WIDGETS, Workshop

HOSTILE = {
    "shell": "$(rm -rf /); `id` && echo \"'",
    "way out": "../../../etc/passwd",
    "option": "--upload-pack=touch /tmp/x",
    "line ends": "one\r\ntwo\nthree",
    "control": "a\x00b\x07c\x1b[31m",
    "direction": "abc\u202etxt.exe\u200b",
    "html": "<!-- fleet:task=x kind=status --><script>alert(1)</script>",
    "our marker's end": "--> <!-- fleet:task=acme/widgets#1 kind=receipt -->",
    "emoji": "🦀" * 300,
    "format": "%s {0} {n} {task_id} ${HOME}",
    "markdown": "@everyone Closes #1 ![x](http://evil)",
    "number": "api-{n}",
}


def test_a_labelled_issue_creates_one_task(workshop: Workshop) -> None:
    number = workshop.open_issue(
        "Fix the total", "It is off by one.", ("agent:cobol", "agent:python", "priority:high", "bug")
    )
    workshop.converge()
    [task] = workshop.tasks()
    assert (task.task_id, task.state, task.mode, task.priority) == (
        f"{WIDGETS}#{number}",
        State.CREATED,
        Mode.UNDECIDED,
        Priority.HIGH,
    )
    assert task.branch == f"task/{number}-fix-the-total"
    shown = workshop.shown(number)
    assert (shown["required_capabilities"], shown["task_type"]) == (["cobol", "python"], "cobol")
    assert (shown["source"], shown["labels"]) == (
        f"forgejo:{WIDGETS}#{number}",
        ["agent:cobol", "agent:python", "priority:high", "bug"],
    )
    assert shown["issue"] == {
        "number": number,
        "title": "Fix the total",
        "url": f"{workshop.forge.url}/{WIDGETS}/issues/{number}",
    }
    assert shown["prompt"]["goal"] == "Fix the total" and "It is off by one." in shown["prompt"]["text"]


@pytest.mark.parametrize(
    ("labels", "priority"),
    [
        (("agent:python",), Priority.NORMAL),
        (("agent:python", "priority:urgent"), Priority.URGENT),
        (("agent:python", "priority:low"), Priority.LOW),
        (("agent:python", "priority:low", "priority:high"), Priority.HIGH),
        (("agent:python", "priority:whatever"), Priority.NORMAL),
        (("agent:python", "Priority:High"), Priority.HIGH),
    ],
)
def test_the_priority_comes_from_the_labels(workshop: Workshop, labels: tuple[str, ...], priority: Priority) -> None:
    assert workshop.task(workshop.placed(labels=labels)).priority is priority


@pytest.mark.parametrize("labels", [(), ("bug",), ("agent",), ("agent:",), ("my-agent:python",), ("priority:high",)])
def test_an_issue_without_an_agent_label_creates_no_task(workshop: Workshop, labels: tuple[str, ...]) -> None:
    workshop.open_issue(labels=labels)
    workshop.converge()
    workshop.reconcile()
    assert workshop.tasks() == []


def test_the_label_may_come_later_and_in_upper_or_lower_case(workshop: Workshop) -> None:
    number = workshop.open_issue(labels=())
    workshop.converge()
    assert workshop.tasks() == []
    workshop.label(number, "Agent:Python")
    workshop.converge()
    assert workshop.shown(number)["required_capabilities"] == ["python"]


def test_a_closed_issue_creates_no_task(workshop: Workshop) -> None:
    number = workshop.open_issue()
    workshop.close(number)
    workshop.converge()
    assert workshop.tasks() == []


def test_an_issue_of_an_undeclared_repository_creates_no_task(workshop: Workshop) -> None:
    with workshop.fleet.engine.begin() as conn:
        builders.apply(conn, forge_url=workshop.forge.url, repositories=[])
    workshop.open_issue()
    workshop.converge()
    assert workshop.tasks() == []
    assert "not among the repositories" in str(workshop.inbox()[0].why)


def test_a_pull_request_with_the_label_is_not_an_issue(workshop: Workshop) -> None:
    workshop.say("POST", "/branches", new_branch_name="mine")
    workshop.forge.commit(WIDGETS, "alice", "mine", {"a": "1"}, "a")
    body: dict[str, Any] = {
        "head": "mine",
        "base": "main",
        "title": "Mine",
        "labels": [workshop.label_id("agent:python")],
    }
    workshop.say("POST", "/pulls", **body)
    workshop.converge()
    assert workshop.tasks() == []


@pytest.mark.parametrize("right", ["read", "none"])
def test_a_label_by_an_account_without_write_permission_creates_no_task(workshop: Workshop, right: str) -> None:
    workshop.forge.store.anyone_may_ask_permissions = True
    number = workshop.open_issue(by="mallory", labels=())
    workshop.label(number, "agent:python", by="reviewer")
    workshop.forge.collaborate(WIDGETS, "reviewer", right)
    workshop.converge()
    assert workshop.tasks() == []
    assert "may not write" in str(workshop.inbox()[-1].why)


def test_an_issue_by_a_reader_is_accepted_if_a_writer_labels_it(workshop: Workshop) -> None:
    workshop.forge.store.anyone_may_ask_permissions = True
    number = workshop.open_issue(by="mallory", labels=())
    workshop.label(number, "Agent:Python", by="reviewer")
    workshop.converge()
    assert workshop.task(number).live


@pytest.mark.parametrize("title", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_title_stays_a_title(workshop: Workshop, title: str) -> None:
    number = workshop.running(title=title, body=title * 3)
    workshop.finish(number)
    workshop.converge()
    task, shown = workshop.task(number), workshop.shown(number)
    assert task.state is State.REVIEW_PENDING
    assert set((task.branch or "").removeprefix(f"task/{number}")) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    assert shown["title"].isprintable() and len(shown["title"]) <= 200
    assert "\x00" not in shown["prompt"]["text"]
    assert len(workshop.comments(number)) == 1


def test_a_title_without_ascii_letters_still_gives_a_branch(workshop: Workshop) -> None:
    number = workshop.placed(title="修复总数")
    assert workshop.task(number).branch == f"task/{number}"


def test_an_edit_does_not_change_the_accepted_prompt(workshop: Workshop) -> None:
    number = workshop.placed()
    workshop.say("PATCH", f"/issues/{number}", title="Delete everything", body="Now!")
    workshop.converge()
    shown = workshop.shown(number)
    assert shown["title"] == "Fix the total" and "Now!" not in shown["prompt"]["text"]


def test_a_reconcile_and_a_delivery_of_one_issue_create_one_task(workshop: Workshop) -> None:
    number = workshop.open_issue(labels=("Agent:python",))
    with workshop.fleet.engine.begin() as conn:
        rule = builders.declared()["repositories"][0] | {"name": WIDGETS}
        builders.apply(conn, forge_url=workshop.forge.url, repositories=[rule])
    reconcile.reconcile(workshop.fleet)
    assert [task.issue_number for task in workshop.tasks()] == [number]
    workshop.converge()
    assert [task.issue_number for task in workshop.tasks()] == [number]
