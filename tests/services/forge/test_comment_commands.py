"""Commands in comments: only with write permission, executed once, answered."""

import pytest

from app.domain.task import State
from app.services.forge.deliveries import apply_deliveries
from app.services.replay import differences
from tests import builders
from tests.conftest import FakeClock
from tests.workshop import REPO, Workshop


def failed(workshop: Workshop) -> int:
    number = workshop.running()
    workshop.finish(number, None, end="failed", step="prepare")
    for _ in range(3):
        workshop.converge()
        if workshop.task(number).state is State.FAILED:
            return number
    workshop.comment(number, "/cancel")
    workshop.converge()
    return number


def test_retry_is_answered_by_reactions_only(workshop: Workshop) -> None:
    number = failed(workshop)
    said = len(workshop.comments(number))
    comment = workshop.comment(number, "Once more, please.\n\n/retry")
    workshop.converge()
    assert workshop.task(number).live
    assert workshop.reactions(comment) == {"eyes", "rocket"}
    assert len(workshop.comments(number)) == said


def test_a_repeated_command_is_executed_once(workshop: Workshop) -> None:
    number = failed(workshop)
    workshop.comment(number, "/retry")
    workshop.converge()
    workshop.comment(number, "/cancel")
    workshop.converge()
    for again in range(len(workshop.forge.deliveries)):
        workshop.forge.deliver_again(again)
    workshop.converge()
    workshop.reconcile()
    assert workshop.task(number).state is State.CANCELLED
    assert workshop.facts(number).count("retry") == 1
    assert differences(workshop.fleet) == (1, [])


def test_reconcile_finds_a_command_that_no_delivery_brought(workshop: Workshop) -> None:
    number = workshop.running()
    workshop.forge.faults.webhooks_off = True
    comment = workshop.comment(number, "/cancel")
    workshop.reconcile()
    assert (workshop.task(number).state, workshop.task(number).reason) == (State.CANCELLED, "cancelled")
    assert workshop.reactions(comment) == {"eyes", "rocket"}
    workshop.reconcile()
    assert workshop.facts(number).count("cancel") == 1


def test_commands_work_on_the_pull_request_too(workshop: Workshop) -> None:
    number, pull = workshop.in_review()
    workshop.comment(pull, "/cancel")
    workshop.converge()
    assert workshop.task(number).state is State.CANCELLED


def test_a_command_without_write_permission_gets_a_reaction_and_no_reply(workshop: Workshop) -> None:
    number = workshop.running()
    comment = workshop.comment(number, "/cancel", by="mallory")
    workshop.converge()
    assert workshop.task(number).state is State.RUNNING
    assert workshop.reactions(comment) == {"eyes", "confused"}
    assert len(workshop.comments(number)) == 1


def test_a_command_without_write_permission_is_refused_if_reconcile_finds_it(workshop: Workshop) -> None:
    number = workshop.running()
    workshop.forge.faults.webhooks_off = True
    workshop.comment(number, "/cancel", by="mallory")
    workshop.reconcile()
    assert workshop.task(number).state is State.RUNNING


def test_a_refused_command_is_explained_once(workshop: Workshop) -> None:
    number = workshop.running()
    comment = workshop.comment(number, "/retry")
    workshop.converge()
    workshop.reconcile()
    assert workshop.reactions(comment) == {"eyes", "confused"}
    [reply] = [text for text in workshop.comments(number) if "kind=reply" in text]
    assert "`/retry` was refused" in reply and "running" in reply


@pytest.mark.parametrize("fault", ["cut-after-doing", "502-after-doing"])
def test_a_lost_answer_does_not_write_a_second_reply(workshop: Workshop, clock: FakeClock, fault: str) -> None:
    number = workshop.running()
    workshop.comment(number, "/status")
    workshop.forge.faults.next("POST", r"/issues/\d+/comments$", fault)
    workshop.converge()
    clock.pass_(10)
    workshop.converge()
    [reply] = [text for text in workshop.comments(number) if "kind=reply" in text]
    assert "`localhost` is working on it (run 1)" in reply


def test_help_works_without_a_task(workshop: Workshop) -> None:
    number = workshop.open_issue(labels=())
    workshop.comment(number, "/help")
    workshop.comment(number, "/retry")
    workshop.converge()
    replies = workshop.comments(number)
    assert "`/assign HOST`" in replies[0] and "There is no task here" in replies[1]
    assert workshop.tasks() == []


def test_assign_gives_a_waiting_task_to_the_named_host(workshop: Workshop) -> None:
    busy = [workshop.running() for _ in range(2)]
    number = workshop.placed()
    assert workshop.task(number).state is State.CREATED
    workshop.comment(number, "/assign localhost")
    workshop.comment(number, "/assign nowhere")
    workshop.converge()
    said = "\n".join(workshop.comments(number))
    assert "full 2/2" in said and "no agent" in said
    workshop.finish(busy[0])
    workshop.converge()
    assert workshop.task(number).host_id == "localhost"


@pytest.mark.parametrize("how", ["edited", "deleted"])
def test_an_edited_comment_gives_no_command(workshop: Workshop, how: str) -> None:
    number = workshop.running()
    comment = workshop.comment(number, "Nothing.")
    workshop.converge()
    if how == "edited":
        workshop.say("PATCH", f"/issues/comments/{comment}", body="/cancel")
    else:
        workshop.say("DELETE", f"/issues/comments/{comment}")
    workshop.converge()
    assert workshop.task(number).state is State.RUNNING


def test_comments_by_the_bot_and_by_other_bots_give_no_commands(workshop: Workshop) -> None:
    number = workshop.running()
    token = workshop.forge.add_user("renovate-bot")
    workshop.forge.collaborate("acme/widgets", "renovate-bot", "write")
    workshop.people["renovate-bot"] = workshop.forge.client(token)
    for by in ("fleet", "renovate-bot"):
        workshop.comment(number, "/cancel", by=by)
    workshop.converge()
    workshop.reconcile()
    assert workshop.task(number).state is State.RUNNING


def test_a_command_that_arrives_before_its_issue_creates_the_task_first(workshop: Workshop) -> None:
    number = workshop.open_issue()
    workshop.comment(number, "/status")
    workshop.forge.wait_for_deliveries()
    said = next(one for one in workshop.forge.deliveries if one.event_type == "issue_comment")
    workshop.bring(said)
    apply_deliveries(workshop.fleet)
    assert workshop.task(number).state is State.CREATED
    workshop.converge()
    assert len(workshop.tasks()) == 1


def test_commands_in_other_repositories_are_ignored(workshop: Workshop) -> None:
    workshop.say("POST", "/branches", new_branch_name="mine")
    workshop.forge.commit("acme/widgets", "alice", "mine", {"a": "1"}, "a")
    pull = workshop.say("POST", "/pulls", head="mine", base="main", title="Mine")["number"]
    theirs = workshop.comment(pull, "/retry")
    workshop.converge()
    with workshop.fleet.engine.begin() as conn:
        builders.apply(conn, forge_url=workshop.forge.url, repositories=[])
    elsewhere = workshop.comment(workshop.open_issue(labels=()), "/help")
    workshop.converge()
    assert workshop.reactions(theirs) == workshop.reactions(elsewhere) == set()


def test_a_command_waits_while_the_token_is_rotated(workshop: Workshop, clock: FakeClock) -> None:
    number = workshop.running()
    workshop.comment(number, "/cancel")
    workshop.forge.faults.next("POST", r"/reactions$", 401)
    workshop.converge()
    clock.pass_(5)
    workshop.converge()
    assert workshop.task(number).state is State.CANCELLED


def test_a_command_waits_while_the_forge_does_not_answer(workshop: Workshop, clock: FakeClock) -> None:
    number = workshop.running()
    comment = workshop.comment(number, "/cancel")
    workshop.forge.faults.next("POST", r"/reactions$", 503)
    workshop.converge()
    clock.pass_(5)
    workshop.converge()
    assert workshop.task(number).state is State.CANCELLED
    assert workshop.reactions(comment) == {"eyes", "rocket"}


def test_a_command_is_in_the_history_of_its_task(workshop: Workshop) -> None:
    number = workshop.running()
    comment = workshop.comment(number, "/cancel", by="reviewer")
    workshop.converge()
    told = workshop.shown(number)["events"][-1]["detail"]
    assert told == {"by": "reviewer", "comment": comment}
    assert workshop.people["alice"].get(f"{REPO}/issues/{number}").status_code == 200
