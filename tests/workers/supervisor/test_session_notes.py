"""The newest note in a CLI's session file comes with the poll and the result."""

from __future__ import annotations

import json
import os
import signal
from functools import partial
from pathlib import Path

import pytest

from tests.patience import wait_until
from tests.workers.supervisor.host import Host, Json


def start(host: Host, *lines: str, then: str = "") -> Path:
    """Start a CLI with a session file of these lines, as the template of Codex names it. Return the file."""
    file = {"named": '"id":"([a-f0-9-]+)"', "path": "{PLACE}/*/roll-{session}.jsonl", "line": '"count"'}
    (host.place / "day").mkdir()
    own, other = (host.place / "day" / f"roll-{session}.jsonl" for session in ("a-1", "b-2"))
    own.write_text("".join(line + "\n" for line in lines))
    other.write_text('{"timestamp": "9999", "count": "of another session"}\n')
    script = f"""echo '{{"id":"a-1"}}'; {then}"""
    host.start(agent={"argv": ["sh", "-c", script], "env": {"PLACE": str(host.place)}, "session_file": file})
    return own


def result_with(host: Host, *lines: str) -> Json:
    start(host, *lines)
    return host.result()


def is_noted(host: Host, line: str) -> bool:
    return bool(host.poll()["noted"] == line)


def test_whole_lines_are_noted_during_the_run_and_survive_its_supervisor(host: Host) -> None:
    file = start(host, then="sleep 60")
    for count in (1, 2):
        line = json.dumps({"timestamp": "9999", "count": count})
        with file.open("a") as session:
            session.write(f'{line}\n{{"timestamp": "9999", "count": "half wri')
        wait_until(partial(is_noted, host, line), "the line is noted")
        with file.open("a") as session:
            session.write("\n")
    os.kill(host.state()["pid"], signal.SIGKILL)
    result = host.result()
    assert (result["end"], result["noted"]) == ("lost", line)


def test_the_newest_is_in_the_result(host: Host) -> None:
    newest = '{"timestamp": "9999-01-01T00:00:00Z", "count": 2}'
    assert result_with(host, '{"timestamp": "9998", "count": 1}', newest, '{"more": 1}')["noted"] == newest


@pytest.mark.parametrize("line", ['{"timestamp": "2020-01-01T00:00:00Z", "count": 1}', '"count"', "\x00", "[1]"])
def test_lines_of_earlier_runs_and_other_lines_are_no_notes(host: Host, line: str) -> None:
    result = result_with(host, line)
    assert (result["end"], result["noted"]) == ("finished", None)
