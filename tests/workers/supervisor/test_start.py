"""A start makes a folder and a process once, and passes on what it was given."""

from __future__ import annotations

import os
import resource
import time
from concurrent.futures import ThreadPoolExecutor

from tests.workers.supervisor.host import (
    Host,
)


def test_five_starts_at_once_make_one_process(host: Host) -> None:
    with ThreadPoolExecutor(5) as five:
        answers = list(five.map(lambda _: host.start("echo once"), range(5)))
    assert sorted(answer["state"] for answer in answers) == ["known"] * 4 + ["started"]
    assert len({answer["pid"] for answer in answers}) == 1
    assert host.result()["end"] == "finished"
    assert host.log() == "once\n"


def test_a_start_repeated_after_the_end_starts_nothing(host: Host) -> None:
    host.start("echo once")
    host.result()
    assert host.start("echo twice")["state"] == "known"
    assert host.log() == "once\n"


def test_a_folder_without_a_supervisor_is_taken_over(host: Host) -> None:
    host.folder().mkdir(parents=True)
    long_ago = time.time() - 60
    os.utime(host.folder(), (long_ago, long_ago))
    assert host.poll() == {"known": False}
    assert host.start("echo taken over")["state"] == "started"
    assert host.result()["end"] == "finished"


def test_a_hostile_prompt_arrives_byte_for_byte_on_stdin(host: Host) -> None:
    prompt = (
        "$(touch owned) `id` 'single' \"double\" \\ {workdir} %s\r\n\t\u00e9\U0001f600\x01" + "\n" * 3 + "x" * 2**20
    )
    host.start("cat > received; ls", agent={"prompt": prompt})
    assert host.result()["end"] == "finished"
    assert (host.worktree / "received").read_bytes() == prompt.encode()
    assert host.log() == "received\n"


def test_a_prompt_can_be_a_file_and_then_stdin_is_empty(host: Host) -> None:
    agent = {
        "argv": ["sh", "-c", "cat; cat $1", "sh", "{prompt_file}"],
        "prompt": "as a file",
        "prompt_via": "file",
    }
    host.start(agent=agent)
    host.result()
    assert host.log() == "as a file"
    assert (host.folder() / "prompt.txt").stat().st_mode & 0o777 == 0o600


def test_placeholders_are_replaced_literally(host: Host) -> None:
    argv = ["printf", "%s\n", "{workdir}", "{run}", "{home}", "{unknown} {0} {", "$HOME"]
    host.start(agent={"argv": argv})
    host.result()
    expected = [str(host.worktree), str(host.folder()), str(host.user_home), "{unknown} {0} {", "$HOME"]
    assert host.log().splitlines() == expected


def test_the_agent_sees_only_the_listed_variables(host: Host) -> None:
    host.make_forge()
    wish = host.request(
        agent={"argv": ["env", "-0"], "env": {"KEY": "at {home}"}}, repository=host.repository(),
        credentials={"username": "fleet", "password": "s3cret"},
    )  # fmt: skip
    ours = {
        "PATH": os.environ["PATH"],
        "USER": "u",
        "LANG": "C.UTF-8",
        "AWS_SECRET": "no",
        "PYTHONPATH": "/no",
    }
    assert host.call("start", wish, env=ours)[0] == 0
    assert host.result()["end"] == "finished"
    seen = dict(item.split("=", 1) for item in host.log().rstrip("\0").split("\0"))
    allowed = {"PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TMPDIR", "SHELL", "KEY"}
    allowed |= {"FLEET_RUN", "FLEET_RUN_ID"}
    assert set(seen) <= allowed
    assert (seen["KEY"], seen["FLEET_RUN"]) == (f"at {host.user_home}", "t-12.1")


def test_no_secret_is_written_to_disk(host: Host) -> None:
    host.finish("echo x > new", credentials={"username": "fleet", "password": "s3cret"}, agent={"env": {"K": "k3y"}})
    for path in host.home.rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        assert b"s3cret" not in content and b"k3y" not in content, path


def test_folders_are_readable_for_this_user_alone(host: Host) -> None:
    host.finish("true")
    for folder in (
        host.home,
        host.folder().parent,
        host.folder(),
        host.worktree.parent,
        host.mirror().parent,
    ):
        assert folder.stat().st_mode & 0o777 == 0o700


def test_a_missing_cli_is_named(host: Host) -> None:
    host.start(agent={"argv": ["no-such-cli"]})
    result = host.result()
    assert (result["end"], result["step"]) == ("failed", "agent")
    assert result["reason"] == "the CLI 'no-such-cli' is not on this host's PATH"


def test_a_home_that_cannot_be_written_is_an_error(host: Host) -> None:
    host.home.write_text("a file where the folder should be")
    code, answer = host.call("start", host.request())
    assert code == 2
    assert "fix that" in answer["error"]


def test_a_start_that_runs_out_of_disk_can_be_repeated(host: Host) -> None:

    def no_room() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))

    code, answer = host.call("start", host.request("echo hello"), preexec_fn=no_room)
    assert (code, list(answer)) == (2, ["error"])
    assert not host.folder().exists()
    assert host.start("echo hello")["state"] == "started"
    assert host.result()["end"] == "finished"
