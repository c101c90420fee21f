"""Labels and assignments: they request work, re-route waiting tasks, and bring failed tasks back."""

from app.domain.task import Priority, State
from tests.workshop import WIDGETS, Workshop


def test_changed_labels_re_route_a_waiting_task(workshop: Workshop) -> None:
    number = workshop.placed(labels=("agent:cobol",))
    assert workshop.task(number).state is State.CREATED
    workshop.label(number, "agent:python", "priority:urgent")
    workshop.converge()
    task, shown = workshop.task(number), workshop.shown(number)
    assert (task.state, task.priority) == (State.ASSIGNED, Priority.URGENT)
    assert (shown["required_capabilities"], shown["task_type"]) == (["python"], "python")


def test_changed_labels_do_not_re_route_a_running_task(workshop: Workshop) -> None:
    number = workshop.running()
    workshop.label(number, "agent:cobol")
    workshop.converge()
    assert (workshop.task(number).state, workshop.task(number).run) == (State.RUNNING, 1)


def test_an_assignment_to_the_bot_requests_work_without_a_label(workshop: Workshop) -> None:
    number = workshop.open_issue(labels=())
    workshop.say("PATCH", f"/issues/{number}", assignees=["fleet"])
    workshop.converge()
    assert workshop.task(number).state is State.ASSIGNED
    workshop.say("PATCH", f"/issues/{number}", assignees=["alice"])
    workshop.converge()
    assert workshop.task(number).state is State.CANCELLED


def test_reconcile_finds_an_assignment(workshop: Workshop) -> None:
    workshop.forge.faults.webhooks_off = True
    number = workshop.open_issue(labels=())
    workshop.say("PATCH", f"/issues/{number}", assignees=["fleet"])
    workshop.reconcile()
    assert workshop.task(number).live


def test_an_assignment_by_the_bot_itself_requests_nothing(workshop: Workshop) -> None:
    number = workshop.running()
    assigned = workshop.people["alice"].get(f"/repos/{WIDGETS}/issues/{number}").json()["assignees"]
    assert [one["login"] for one in assigned] == ["fleet"]
    workshop.label(number, "bug")
    workshop.converge()
    assert workshop.task(number).state is State.CANCELLED


def test_a_failed_task_comes_back_only_if_it_is_labelled_again(workshop: Workshop) -> None:
    number = workshop.running()
    workshop.finish(number, None, "I did nothing.")
    workshop.converge()
    workshop.reconcile()
    assert workshop.task(number).state is State.FAILED
    workshop.label(number, "status:blocked")
    workshop.converge()
    assert workshop.task(number).state is State.FAILED
    workshop.edit(number, body="It is off by two.")
    workshop.label(number, "status:blocked", "agent:python")
    workshop.converge()
    task = workshop.task(number)
    assert (task.state, task.run, workshop.shown(number)["requirements"]) == (State.ASSIGNED, 2, "It is off by two.")
    workshop.start(number)
    workshop.finish(number, None, "And nothing again.")
    workshop.converge()
    workshop.reconcile()
    assert (workshop.task(number).state, workshop.task(number).run) == (State.FAILED, 2), "once for each label"


def test_a_label_from_before_the_failure_does_not_bring_a_task_back(workshop: Workshop) -> None:
    number = workshop.running()
    workshop.label(number, "agent:python", "agent:linux")
    workshop.converge()
    workshop.finish(number, None, "I did nothing.")
    workshop.converge()
    workshop.reconcile()
    workshop.reconcile()
    assert (workshop.task(number).state, workshop.task(number).run) == (State.FAILED, 1)
