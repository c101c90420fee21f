"""The outbox keeps one status comment and one status label per issue."""

import pytest

from app.domain.errors import Refused
from tests import builders
from tests.conftest import FakeClock
from tests.workshop import REPO, WIDGETS, Workshop

LOST_ANSWERS = ["cut-after-doing", "502-after-doing"]


@pytest.mark.parametrize("fault", LOST_ANSWERS)
def test_a_lost_answer_does_not_write_a_second_comment(workshop: Workshop, clock: FakeClock, fault: str) -> None:
    number = workshop.placed()
    workshop.forge.faults.next("POST", r"/issues/\d+/comments$", fault)
    workshop.start(number)
    workshop.converge()
    clock.pass_(5)
    workshop.converge()
    assert len(workshop.comments(number)) == 1
    assert workshop.shown(number)["outbox"] == [] or {entry["kind"] for entry in workshop.shown(number)["outbox"]} == {
        "start"
    }


def test_the_one_status_comment_shows_the_current_state(workshop: Workshop) -> None:
    number, pull = workshop.in_review()
    [comment] = workshop.comments(number)
    assert f"Pull request #{pull} waits for review." in comment
    workshop.merge(pull)
    workshop.converge()
    status, receipt = workshop.comments(number)
    assert "Done." in status and "receipt" in receipt


def test_a_deleted_comment_is_written_again(workshop: Workshop) -> None:
    number = workshop.running()
    [comment] = workshop.people["alice"].get(f"{REPO}/issues/{number}/comments").json()
    workshop.say("DELETE", f"/issues/comments/{comment['id']}")
    workshop.finish(number)
    workshop.converge()
    assert len(workshop.comments(number)) == 1


@pytest.mark.parametrize("fault", LOST_ANSWERS)
def test_a_deleted_comment_is_written_again_once_although_the_answer_is_lost(
    workshop: Workshop, clock: FakeClock, fault: str
) -> None:
    number = workshop.running()
    [comment] = workshop.people["alice"].get(f"{REPO}/issues/{number}/comments").json()
    workshop.say("DELETE", f"/issues/comments/{comment['id']}")
    workshop.forge.faults.next("POST", r"/issues/\d+/comments$", fault)
    workshop.finish(number)
    workshop.converge()
    clock.pass_(10)
    workshop.converge()
    assert len(workshop.comments(number)) == 1


def test_a_copy_of_our_marker_by_another_account_is_not_edited(workshop: Workshop) -> None:
    number = workshop.placed()
    marker = f"<!-- fleet:task={WIDGETS}#{number} kind=status -->"
    workshop.say("POST", f"/issues/{number}/comments", "mallory", body=f"Mine.\n\n{marker}")
    workshop.start(number)
    workshop.converge()
    assert workshop.comments(number, by="mallory") == [f"Mine.\n\n{marker}"]
    assert len(workshop.comments(number)) == 1


def test_labels_are_created_once_and_follow_the_state(workshop: Workshop) -> None:
    number, pull = workshop.in_review(labels=("agent:python", "bug"))
    other = workshop.running()
    assert workshop.labels(number) == {"agent:python", "bug", "status:review"}
    assert "status:doing" in workshop.labels(other)
    workshop.merge(pull)
    workshop.converge()
    assert workshop.labels(number) == {"agent:python", "bug", "status:done"}
    names = [label.name for label in workshop.forge.repository(WIDGETS).labels]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("fault", LOST_ANSWERS)
def test_a_lost_answer_does_not_create_a_second_label(workshop: Workshop, clock: FakeClock, fault: str) -> None:
    workshop.forge.faults.next("POST", r"/widgets/labels$", fault)
    number = workshop.placed()
    clock.pass_(5)
    workshop.converge()
    names = [label.name for label in workshop.forge.repository(WIDGETS).labels]
    assert names.count("status:doing") == 1 and "status:doing" in workshop.labels(number)


def test_a_cancelled_task_has_no_status_label(workshop: Workshop) -> None:
    number = workshop.running()
    workshop.close(number)
    workshop.converge()
    assert workshop.labels(number) == {"agent:python"}


def test_labels_have_the_names_of_fleet_toml(workshop: Workshop) -> None:
    forge = builders.declared(workshop.forge.url)["forges"]["main"] | {"labels": {"doing": "agent/working", "todo": ""}}
    with workshop.fleet.engine.begin() as conn:
        builders.apply(conn, forges={"main": forge})
    number = workshop.running()
    assert workshop.labels(number) == {"agent:python", "agent/working"}
    assert [
        label.exclusive for label in workshop.forge.repository(WIDGETS).labels if label.name == "agent/working"
    ] == [True]


def test_a_label_that_the_forge_drops_is_an_error(workshop: Workshop) -> None:
    """The forge drops an unknown label without an error."""
    number = workshop.open_issue()
    forge = workshop.fleet.forges("main")
    label = workshop.forge.add_label(WIDGETS, "status:doing")
    workshop.forge.faults.next("POST", rf"/issues/{number}/labels$", "cut")
    with pytest.raises(Refused):
        forge.set_labels(WIDGETS, number, {"status:doing": ""}, frozenset())
    forge.set_labels(WIDGETS, number, {"status:doing": ""}, frozenset())
    assert label.name in workshop.labels(number)
