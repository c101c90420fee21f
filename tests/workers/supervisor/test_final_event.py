"""A CLI that does not exit after its final event is ended."""

from __future__ import annotations

from tests.workers.supervisor.host import Host

FINAL = {"final": ["turn.completed", "result"]}
EVENT = '{"type": "turn.completed", "usage": {}}'


def test_it_counts_as_finished(host: Host) -> None:
    agent = {"argv": ["sh", "-c", f"echo x > new; echo '{EVENT}'; echo bye; exec sleep 60"], **FINAL}
    host.start_delivery(agent=agent, limits={"final_secs": 0.3})
    result = host.result()
    assert (result["end"], result["hung"], result["signal"], result["pushed"]) == ("finished", True, 15, True)


def test_a_cli_that_continues_after_the_event_is_not_ended(host: Host) -> None:
    script = f"printf '%s\\n' '{EVENT}' '{{\"type\": \"turn.started\"}}'; sleep 1.2; exit 3"
    host.start(agent={"argv": ["sh", "-c", script], **FINAL}, limits={"final_secs": 0.2})
    result = host.result()
    assert (result["end"], result["exit_code"], result["hung"]) == ("failed", 3, False)


def test_the_name_of_the_event_within_another_is_not_final(host: Host) -> None:
    script = 'echo \'{"type": "item", "text": "turn.completed"}\'; sleep 1.2; exit 4'
    host.start(agent={"argv": ["sh", "-c", script], **FINAL}, limits={"final_secs": 0.2})
    assert host.result()["exit_code"] == 4
