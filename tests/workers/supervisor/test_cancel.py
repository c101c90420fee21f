"""A cancel ends a run in every step."""

from __future__ import annotations

from tests.patience import patient
from tests.workers.supervisor.host import BRANCH, RUN, Host, is_running, locked

SLOW = {"grace_secs": patient(60)}


def test_an_agent_that_ignores_sigterm_is_killed_with_its_children(host: Host) -> None:
    host.start("trap '' TERM; sleep 60 & echo $!; while :; do sleep 0.05; done")
    state = host.agent_state()
    child = int(host.first_output())
    assert host.ask("cancel", run=RUN, grace_secs=0.2)["state"] == "cancelling"
    assert host.result()["end"] == "cancelled"
    assert not is_running(state["agent_pid"]) and not is_running(child)
    assert host.ask("cancel", run=RUN)["state"] == "ended"


def test_a_run_that_is_cancelled_before_its_start_never_starts(host: Host) -> None:
    assert host.ask("cancel", run=RUN)["state"] == "unknown"
    assert host.start("echo too late")["state"] == "cancelled"
    assert host.poll()["result"]["end"] == "cancelled"
    assert not (host.folder() / "stdout.log").exists()


def test_a_cancel_in_the_step_prepare_starts_no_agent(host: Host) -> None:
    host.start_delivery("true")
    host.result()
    with locked(host.mirror().with_name(host.mirror().name + ".lock")):
        host.start_delivery("echo started", fence=2)
        host.ask("cancel", run="t-12.2")
        result = host.result("t-12.2")
    assert (result["end"], result["step"]) == ("cancelled", "prepare")
    assert host.state("t-12.2")["agent_pid"] is None


def test_a_push_may_end_within_the_grace_and_is_reported(host: Host) -> None:
    host.hold_push()
    host.start_delivery("echo one > file", limits=SLOW)
    host.wait_for_push()
    assert host.ask("cancel", run=RUN)["state"] == "cancelling"
    host.release_push()
    result = host.result()
    assert (result["end"], result["pushed"]) == ("cancelled", True)
    assert host.forge_git("rev-parse", BRANCH) == result["head"]


def test_a_push_that_takes_longer_than_the_grace_is_killed_and_not_reported(host: Host) -> None:
    host.add_hook("pre-receive", f"touch {host.place}/pushing\nexec sleep 90 <&- >&- 2>&-")
    host.start_delivery("echo one > file", limits={"grace_secs": 0.3})
    host.wait_for_push()
    host.ask("cancel", run=RUN)
    result = host.result()
    assert (result["end"], result["pushed"]) == ("cancelled", False)
