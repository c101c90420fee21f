"""The supervisor as a host knows it: called as a program, with real git, real processes and real signals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from workers.supervisor import bundle
from workers.supervisor.askpass import serve_secret

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BUILT = tempfile.TemporaryDirectory(prefix="fleet-supervisor-")
SUPERVISOR = Path(BUILT.name) / "supervisor.py"
SUPERVISOR.write_bytes(bundle.source())
ENVIRONMENT = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "LC_ALL": "C"}
Json = dict[str, Any]


class Host:
    """A machine with a home for the fleet, a forge it can reach, and what an operator would do on it."""

    def __init__(self, place: Path) -> None:
        self.place, self.home, self.forge = place, place / "fleet", place / "forge.git"
        self.user_home = place / "user"
        self.user_home.mkdir()

    def call(self, verb: str, request: Json | str, **how: Any) -> tuple[int, Json]:
        text = request if isinstance(request, str) else json.dumps(request)
        env = {**ENVIRONMENT, "HOME": str(self.user_home), **how.pop("env", {})}
        done = subprocess.run(
            [sys.executable, "-I", "-S", SUPERVISOR, verb],
            input=text.encode(), stdout=subprocess.PIPE, env=env, timeout=60, check=False, **how,
        )  # fmt: skip
        return done.returncode, told(done.stdout)

    def ask(self, verb: str, **request: Any) -> Json:
        code, answer = self.call(verb, {"home": str(self.home), "instance": "i1", **request})
        assert code == 0, answer
        return answer

    def start(self, script: str = "", **changes: Any) -> Json:
        return self.ask("start", **self.wish(script, **changes))

    def wish(self, script: str = "", **changes: Any) -> Json:
        fence = changes.pop("fence", 1)
        agent = {"argv": ["sh", "-c", script], "prompt": "do it", **changes.pop("agent", {})}
        limits = {
            "wall_secs": 30,
            "silence_secs": 30,
            "grace_secs": 0.5,
            "spare_secs": 600,
            **changes.pop("limits", {}),
        }
        wish = {"home": str(self.home), "instance": "i1", "run": f"t-12.{fence}", "task": "t-12", "agent": agent,
                "limits": limits, "heartbeat_secs": 0.2, "repository": None}  # fmt: skip
        return {**wish, **changes}

    def on_forge(self, script: str = "", **changes: Any) -> Json:
        """A start that shall deliver."""
        if not self.forge.exists():
            self.make_forge()
        delivery = {"message": "Fix it", "author_name": "Fleet", "author_email": "fleet@example.org"}
        return self.start(script, **{"repository": self.repository(), "delivery": delivery, **changes})

    def repository(self, **changes: str) -> Json:
        return {"url": f"file://{self.forge}", "base": "main", "branch": "task/12-fix", **changes}

    def make_forge(self) -> None:
        seed = self.place / "seed"
        git("init", "--quiet", "--initial-branch=main", str(seed))
        (seed / "README").write_text("hello\n")
        commit(seed, "first")
        git("clone", "--quiet", "--bare", str(seed), str(self.forge))

    def forge_git(self, *words: str) -> str:
        return git("--git-dir", str(self.forge), *words)

    def poll(self, run: str = "t-12.1", **changes: Any) -> Json:
        answer = self.ask("poll", runs=[{"run": run, "stdout": 0, "stderr": 0}], **changes)
        seen: Json = answer["runs"][run]
        return seen

    def result(self, run: str = "t-12.1", secs: float = 20) -> Json:
        result: Json = eventually(lambda: self.poll(run).get("result"), secs)
        return result

    def finished(self, *args: str, **changes: Any) -> Json:
        answer = self.on_forge(*args, **changes)
        result = self.result(answer["run"])
        assert result["end"] == "finished", result
        return result

    def folder(self, run: str = "t-12.1") -> Path:
        return self.home / "runs" / "i1" / run

    @property
    def worktree(self) -> Path:
        return self.home / "work" / "i1" / "t-12"

    def mirror(self) -> Path:
        return next((self.home / "mirrors").glob("*.git"))

    def state(self, run: str = "t-12.1") -> Json:
        state: Json = eventually(lambda: read(self.folder(run) / "state.json"))
        return state

    def working(self, run: str = "t-12.1") -> Json:
        """The state once the agent runs: it is written down a moment before its first instruction."""
        state: Json = eventually(lambda: has_begun((state := self.state(run))["agent_pid"]) and state)
        return state

    def said(self, name: str = "stdout.log", run: str = "t-12.1") -> str:
        return (self.folder(run) / name).read_text()

    def clear(self) -> None:
        """Leave no process behind, whatever a test did."""
        for path in self.home.glob("runs/*/*/state.json"):
            state = read(path) or {}
            for who in ("pid", "agent_pid", "check_pid"):
                if state.get(who) and works_below(self.place, state[who]):
                    with suppress(ProcessLookupError):
                        os.kill(state[who], signal.SIGKILL)
                        os.killpg(state[who], signal.SIGKILL)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    host = Host(tmp_path)
    yield host
    host.clear()


def git(*words: str) -> str:
    who = ("-c", "user.name=Someone", "-c", "user.email=someone@example.org")
    done = subprocess.run(["git", *who, *words], env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def commit(folder: Path, message: str) -> None:
    git("-C", str(folder), "add", "--all")
    git("-C", str(folder), "commit", "--quiet", "-m", message)


def push_by_somebody(host: Host, branch: str, name: str, start: str) -> None:
    clone = host.place / f"clone-{name}"
    git("clone", "--quiet", "--branch", start, str(host.forge), str(clone))
    (clone / name).write_text(name)
    commit(clone, f"somebody's {name}")
    git("-C", str(clone), "push", "--quiet", "origin", f"HEAD:refs/heads/{branch}")


def read(path: Path) -> Json | None:
    return json.loads(path.read_text()) if path.exists() else None


def eventually(seen: Callable[[], Any], secs: float = 20) -> Any:
    until = time.monotonic() + secs
    while not (value := seen()):
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.02)
    return value


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def has_begun(pid: int | None) -> bool:
    """Whether the process has become its own program; before that it is a copy of the supervisor."""
    try:
        return pid is not None and SUPERVISOR.name not in Path(f"/proc/{pid}/cmdline").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True  # and has ended already


def works_below(place: Path, pid: int) -> bool:
    """Whether the pid is still the test's own."""
    try:
        return str(Path(f"/proc/{pid}/cwd").readlink()).startswith(str(place))
    except OSError:
        return False


def told(said: bytes) -> Json:
    """An answer, the bytes of each log as its `data`."""
    line, _, raw = said.partition(b"\n")
    answer: Json = json.loads(line)
    assert answer.pop("bytes") == len(raw)
    for run in answer.get("runs", {}).values():
        for piece in (run[name] for name in ("stdout", "stderr") if name in run):
            piece["data"] = raw[piece["at"] : piece["at"] + piece["length"]]
    return answer


def data(log: Json) -> bytes:
    said: bytes = log["data"]
    return said


# ------------------------------------------------------------------------------------------------------- start
def test_five_starts_at_once_give_one_process(host: Host) -> None:
    with ThreadPoolExecutor(5) as five:
        answers = list(five.map(lambda _: host.start("echo once; sleep 0.3"), range(5)))
    assert sorted(answer["state"] for answer in answers) == ["known"] * 4 + ["started"]
    assert len({answer["pid"] for answer in answers}) == 1
    assert host.result()["end"] == "finished"
    assert host.said() == "once\n"


def test_a_start_said_again_after_the_end_starts_nothing(host: Host) -> None:
    host.start("echo once")
    host.result()
    assert host.start("echo twice")["state"] == "known"
    assert host.said() == "once\n"


def test_a_folder_whose_maker_died_is_taken_over(host: Host) -> None:
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
    assert host.said() == "received\n"


def test_a_prompt_can_be_a_file_and_then_stdin_is_empty(host: Host) -> None:
    agent = {
        "argv": ["sh", "-c", "cat; cat $1", "sh", "{prompt_file}"],
        "prompt": "as a file",
        "prompt_via": "file",
    }
    host.start(agent=agent)
    host.result()
    assert host.said() == "as a file"
    assert (host.folder() / "prompt.txt").stat().st_mode & 0o777 == 0o600


def test_placeholders_are_filled_in_literally(host: Host) -> None:
    argv = ["printf", "%s\n", "{workdir}", "{run}", "{home}", "{unknown} {0} {", "$HOME"]
    host.start(agent={"argv": argv})
    host.result()
    expected = [str(host.worktree), str(host.folder()), str(host.user_home), "{unknown} {0} {", "$HOME"]
    assert host.said().splitlines() == expected


def test_the_agent_sees_only_the_listed_variables(host: Host) -> None:
    host.make_forge()
    wish = host.wish(
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
    seen = dict(item.split("=", 1) for item in host.said().rstrip("\0").split("\0"))
    allowed = {"PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TMPDIR", "SHELL", "KEY"}
    allowed |= {"FLEET_RUN", "FLEET_RUN_ID"}
    assert set(seen) <= allowed
    assert (seen["KEY"], seen["FLEET_RUN"]) == (f"at {host.user_home}", "t-12.1")


def test_no_secret_lies_on_the_disk(host: Host) -> None:
    host.finished("echo x > new", credentials={"username": "fleet", "password": "s3cret"}, agent={"env": {"K": "k3y"}})
    for path in host.home.rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        assert b"s3cret" not in content and b"k3y" not in content, path


def test_folders_are_for_our_eyes_only(host: Host) -> None:
    host.finished("true")
    for folder in (
        host.home,
        host.folder().parent,
        host.folder(),
        host.worktree.parent,
        host.mirror().parent,
    ):
        assert folder.stat().st_mode & 0o777 == 0o700


def test_a_cli_that_is_not_there_is_named(host: Host) -> None:
    host.start(agent={"argv": ["no-such-cli"]})
    result = host.result()
    assert (result["end"], result["step"]) == ("failed", "agent")
    assert result["reason"] == "the CLI 'no-such-cli' is not on this host's PATH"


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("[]", "not a JSON object"),
        ("{}", "instance"),
        (
            '{"instance": "i1", "run": "../x", "task": "t", "agent": {"argv": ["a"], "prompt": ""}}',
            "cannot name",
        ),
        (
            '{"instance": ".i", "run": "x", "task": "t", "agent": {"argv": ["a"], "prompt": ""}}',
            "cannot name",
        ),
        ('{"instance": "i1", "run": "x", "task": "t", "agent": {"argv": [], "prompt": ""}}', "argv"),
        ('{"instance": "i1", "run": "x", "task": "t", "agent": {"argv": [1], "prompt": ""}}', "argv"),
        ('{"instance": "i1", "run": "x", "task": "t", "agent": {"argv": ["a"]}}', "agent.prompt"),
    ],
)
def test_a_garbled_request_is_answered_with_a_sentence(host: Host, text: str, hint: str) -> None:
    code, answer = host.call("start", text)
    assert code == 2
    assert hint in answer["error"]


@pytest.mark.parametrize("change", [{"branch": "--force"}, {"branch": "a..b"}, {"url": "--upload-pack=x"},
                                    {"base": "x y"}, {"url": "http://a:b@h/x"}, {"branch": "x.lock"},
                                    {"pushed": "--all"}])  # fmt: skip
def test_an_option_in_disguise_is_no_repository(host: Host, change: Json) -> None:
    code, answer = host.call("start", host.wish(repository=host.repository(**change)))
    assert (code, list(answer)) == (2, ["error"])
    assert not host.home.exists()


def test_a_field_of_the_wrong_shape_is_answered_with_a_sentence(host: Host) -> None:
    host.start("true")
    for runs in ([{"run": "t-12.1", "stdout": "x"}], [{"run": "t-12.1", "stdout": [1]}], [7]):
        code, answer = host.call("poll", {"home": str(host.home), "instance": "i1", "runs": runs})
        assert (code, list(answer)) == (2, ["error"])


def test_an_unknown_verb_is_answered_with_the_known_ones(host: Host) -> None:
    code, answer = host.call("dance", "{}")
    assert code == 2
    assert "start, poll, cancel, release, probe" in answer["error"]


def test_a_home_that_cannot_be_written_is_an_error(host: Host) -> None:
    host.home.write_text("a file where the folder should be")
    code, answer = host.call("start", host.wish())
    assert code == 2
    assert "fix that" in answer["error"]


def test_a_start_that_runs_out_of_disk_leaves_nothing_that_blocks_the_next(host: Host) -> None:
    import resource

    def no_room() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))

    code, answer = host.call("start", host.wish("echo hello"), preexec_fn=no_room)
    assert (code, list(answer)) == (2, ["error"])
    assert not host.folder().exists()
    assert host.start("echo hello")["state"] == "started"
    assert host.result()["end"] == "finished"


# ------------------------------------------------------------------------------------------------------- a run
def test_a_run_prepares_works_validates_and_delivers(host: Host) -> None:
    result = host.finished("echo new > file; echo done", validation=["test -f file", "echo checked"])
    assert [(step["name"], step["ok"]) for step in result["steps"]] == [
        ("prepare", True), ("agent", True), ("validate", True), ("deliver", True)]  # fmt: skip
    assert result["head"] == host.forge_git("rev-parse", "task/12-fix") == result["commits"][-1]
    assert result["base"] == host.forge_git("rev-parse", "main")
    assert (result["pushed"], result["changed"], result["exit_code"], result["reason"]) == (
        True,
        True,
        0,
        None,
    )
    assert [check["tail"] for check in result["validation"]] == ["", "checked\n"]
    assert (
        host.forge_git("log", "-1", "--format=%an <%ae> %cn %s", "task/12-fix")
        == "Fleet <fleet@example.org> Fleet Fix it"
    )
    assert host.forge_git("show", "task/12-fix:file") == "new"


def test_a_second_round_goes_on_in_the_same_worktree(host: Host) -> None:
    first = host.finished("echo one > file; echo ignored > kept; echo kept > .gitignore")
    second = host.finished("cat kept; echo two > file", fence=2)
    assert host.said(run="t-12.2") == "ignored\n"
    assert second["base"] == first["head"]
    assert second["commits"] == [second["head"]] == [host.forge_git("rev-parse", "task/12-fix")]


def test_a_second_round_brings_in_what_others_pushed_to_the_branch(host: Host) -> None:
    host.finished("echo one > file")
    push_by_somebody(host, "task/12-fix", "theirs", start="task/12-fix")
    assert host.finished("cat theirs", fence=2)["base"] == host.forge_git("rev-parse", "task/12-fix")
    assert host.said(run="t-12.2") == "theirs"


def test_a_branch_that_is_on_the_forge_already_is_gone_on_with(host: Host) -> None:
    host.make_forge()
    push_by_somebody(host, "task/12-fix", "theirs", start="main")
    assert host.finished("cat theirs")["base"] == host.forge_git("rev-parse", "task/12-fix")


def test_a_longer_branch_name_is_not_mistaken_for_ours(host: Host) -> None:
    host.make_forge()
    push_by_somebody(host, "task/12-fix-more", "theirs", start="main")
    result = host.finished("test ! -e theirs")
    assert result["base"] == host.forge_git("rev-parse", "main")


def test_commits_the_agent_made_itself_are_delivered(host: Host) -> None:
    agent = "git config user.name A; git config user.email a@b; echo 1 > a; git add a; git commit -qm mine; echo 2 > b"
    result = host.finished(agent)
    assert len(result["commits"]) == 2
    assert host.forge_git("log", "--format=%s", "-2", "task/12-fix") == "Fix it\nmine"


def test_nothing_changed_is_said_and_nothing_pushed(host: Host) -> None:
    result = host.finished("true")
    assert (result["changed"], result["pushed"], result["commits"]) == (False, False, [])
    assert host.forge_git("branch", "--list", "task/*") == ""


def test_nothing_new_in_a_later_round_is_pushed_but_not_changed(host: Host) -> None:
    host.finished("echo one > file")
    result = host.finished("true", fence=2)
    assert (result["changed"], result["pushed"]) == (False, True)


def test_a_round_delivers_what_an_earlier_one_could_not(host: Host) -> None:
    host.make_forge()
    refuse = host.forge / "hooks" / "pre-receive"
    refuse.write_text("#!/bin/sh\necho the forge is closed >&2\nexit 1\n")
    refuse.chmod(0o755)
    host.on_forge("echo one > file")
    first = host.result()
    assert (first["end"], first["step"], first["pushed"]) == ("failed", "deliver", False)
    assert "the forge is closed" in first["reason"]
    refuse.unlink()
    second = host.finished("true", fence=2)
    assert (second["changed"], second["pushed"]) == (False, True)
    assert host.forge_git("rev-parse", "task/12-fix") == first["head"]


def test_a_failed_validation_is_reported_and_the_work_still_pushed(host: Host) -> None:
    checks = ["true", "yes 0123456789 | head -n 2000; exit 3", "echo never"]
    result = host.finished("echo one > file", validation=checks)
    assert [check["exit_code"] for check in result["validation"]] == [0, 3]
    assert len(result["validation"][1]["tail"]) == 4000
    assert len(host.said("validate.log")) == 22000
    assert result["pushed"] and result["reason"].startswith("validation failed")


def test_a_validation_that_hangs_is_ended(host: Host) -> None:
    result = host.finished("true", validation=["sleep 60"], limits={"validation_secs": 0.3})
    assert result["validation"][0]["exit_code"] == 124


def test_an_agent_that_fails_delivers_nothing_and_its_work_stays(host: Host) -> None:
    host.on_forge("echo half > file; exit 7")
    result = host.result()
    assert (result["end"], result["exit_code"], result["pushed"]) == ("failed", 7, False)
    assert "code 7" in result["reason"]
    assert (host.worktree / "file").read_text() == "half\n"
    assert host.forge_git("branch", "--list", "task/*") == ""


def test_a_base_that_does_not_exist_is_named(host: Host) -> None:
    host.make_forge()
    host.on_forge("true", repository=host.repository(base="nowhere"))
    result = host.result()
    assert (result["end"], result["step"]) == ("failed", "prepare")
    assert "nowhere" in result["reason"]


def test_what_the_agent_leaves_running_is_ended_with_it(host: Host) -> None:
    host.start("sleep 60 & echo $!")
    assert host.result()["end"] == "finished"
    assert not is_running(int(host.said()))


def test_the_wall_clock_ends_an_agent(host: Host) -> None:
    host.start("while :; do echo busy; sleep 0.05; done", limits={"wall_secs": 0.6, "silence_secs": 0.5})
    result = host.result()
    assert (result["end"], result["signal"]) == ("timed_out", signal.SIGTERM)
    assert not is_running(host.state()["agent_pid"])


def test_silence_ends_an_agent(host: Host) -> None:
    host.start("echo hello; sleep 60", limits={"silence_secs": 0.3})
    assert host.result()["end"] == "silent"


def test_the_heart_beats_while_the_agent_works(host: Host) -> None:
    host.start("sleep 1.5; exit 0")
    host.working()
    time.sleep(1)
    assert 0 <= host.poll()["beat_age"] < 0.7


def test_the_result_comes_within_moments_of_the_agents_end(host: Host) -> None:
    host.start("date +%s.%N")
    result = host.result()
    assert result["ended_at"] - float(host.said()) < 0.3


# ----------------------------------------------------------------------------------------------- what can break
def test_a_killed_supervisor_is_found_lost_and_its_agent_ended(host: Host) -> None:
    host.start("setsid sleep 0; sleep 60 & sleep 60")
    state = host.working()
    os.kill(state["pid"], signal.SIGKILL)
    result = host.result()
    assert (result["end"], result["reason"], result["step"]) == ("lost", "the supervisor died", "agent")
    eventually(lambda: not is_running(state["agent_pid"]))
    assert host.poll()["result"] == result
    assert host.start("echo again")["state"] == "known"


def test_a_rebooted_host_is_given_as_the_reason(host: Host) -> None:
    host.start("sleep 60")
    state = host.working()
    os.kill(state["pid"], signal.SIGKILL)
    eventually(lambda: not is_running(state["pid"]))
    (host.folder() / "state.json").write_text(json.dumps({**state, "boot_id": "another"}))
    assert host.result()["reason"] == "the host was rebooted"
    assert is_running(state["agent_pid"])  # that number would be somebody else's after a reboot
    os.killpg(state["agent_pid"], signal.SIGKILL)


def test_a_pid_that_belongs_to_somebody_else_now_is_not_killed(host: Host) -> None:
    host.start("sleep 60")
    state = host.working()
    os.kill(state["pid"], signal.SIGKILL)
    eventually(lambda: not is_running(state["pid"]))
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as somebody:
        other = {**state, "pid": os.getpid(), "agent_pid": somebody.pid, "agent_start": 1}
        (host.folder() / "state.json").write_text(json.dumps(other))
        result = host.result()
        assert result["reason"] == "the supervisor died, and its process number is another program's now"
        assert is_running(somebody.pid)
        somebody.kill()


def test_a_supervisor_told_to_end_without_a_cancel_says_so(host: Host) -> None:
    host.start("sleep 60")
    os.kill(host.working()["pid"], signal.SIGTERM)
    result = host.result()
    assert result["end"] == "lost" and "shutting down" in result["reason"]


def test_a_half_made_worktree_does_not_block(host: Host) -> None:
    host.finished("true")
    (next((host.mirror() / "worktrees").iterdir()) / "index").unlink()
    (host.worktree / ".git").unlink()
    assert host.finished("cat README", fence=2)["end"] == "finished"
    assert host.said(run="t-12.2") == "hello\n"


def test_a_leftover_index_lock_does_not_block(host: Host) -> None:
    host.finished("true")
    lock = next((host.mirror() / "worktrees").iterdir()) / "index.lock"
    lock.touch()
    os.utime(lock, (1, 1))
    assert host.finished("echo one > file", fence=2)["pushed"]


def test_a_leftover_ref_lock_of_a_killed_host_does_not_block(host: Host) -> None:
    host.finished("true")
    push_by_somebody(host, "main", "theirs", start="main")
    lock = host.mirror() / "refs" / "remotes" / "origin" / "main.lock"
    lock.touch()
    os.utime(lock, (1, 1))
    host.finished("true", fence=2)


def test_an_agent_that_left_the_branch_is_brought_back_to_it(host: Host) -> None:
    first = host.finished("git checkout -q -b elsewhere; echo one > file")
    assert host.forge_git("rev-parse", "task/12-fix") == first["head"]
    assert host.finished("git symbolic-ref HEAD", fence=2)["base"] == first["head"]
    assert host.said(run="t-12.2") == "refs/heads/task/12-fix\n"


def test_what_the_agent_does_to_git_has_no_effect_on_the_push(host: Host) -> None:
    evil = host.place / "evil.git"
    git("init", "--quiet", "--bare", str(evil))
    spoil = f"""
        hooks=$(git rev-parse --git-common-dir)/hooks; mkdir -p $hooks {host.place}/hooks
        for hook in $hooks/pre-push {host.place}/hooks/pre-push $hooks/pre-commit $hooks/reference-transaction; do
            printf '#!/bin/sh\\ntouch {host.place}/owned\\n' > $hook; chmod +x $hook; done
        git config url.file://{evil}.insteadOf file://{host.forge}
        git config core.hooksPath {host.place}/hooks
        git config credential.helper '!touch {host.place}/owned; :'
        git config core.fsmonitor 'touch {host.place}/owned'
        git config extensions.worktreeConfig true
        git config --worktree url.file://{evil}.pushInsteadOf file://{host.forge}
        git config --global url.file://{evil}.insteadOf file://{host.forge}
        mkdir {host.place}/common; cp -r "$(git rev-parse --git-common-dir)/." {host.place}/common
        git config --file {host.place}/common/config url.file://{evil}.insteadOf file://{host.forge}
        echo {host.place}/common > "$(git rev-parse --git-common-dir)/commondir"
        echo one > file
    """
    host.on_forge("unset GIT_CONFIG_GLOBAL;" + spoil)
    result = host.result()
    assert result["pushed"], result
    assert host.forge_git("rev-parse", "task/12-fix") == result["head"]
    assert not (host.place / "owned").exists()
    assert git("--git-dir", str(evil), "branch", "--list") == ""


def ask(script: Path, question: str, password: str, scheme: str = "http") -> Callable[[], bytes]:
    """How git asks for it: as often as it likes, of what it was given on its fourth file."""
    told = f"{password}\n".encode()
    heard = serve_secret(told)
    own = {
        "FLEET_GIT_SCHEME": scheme,
        "FLEET_GIT_HOST": "forge:3000",
        "FLEET_GIT_USERNAME": "fleet",
        "FLEET_GIT_BYTES": str(len(told)),
    }
    become = "import os, sys; os.dup2(int(sys.argv[1]), 3); os.execvp('sh', sys.argv[1:])"
    argv = [sys.executable, "-c", become, str(heard), str(script), question]
    env = {"PATH": os.environ["PATH"], **own}
    return lambda: subprocess.run(argv, env=env, pass_fds=(heard,), stdout=subprocess.PIPE, check=False).stdout


def test_the_askpass_script_tells_the_password_again_and_again(host: Host) -> None:
    word = "p'$(id) w\\n"
    host.finished("true", credentials={"username": "fleet", "password": word})
    asking = ask(host.folder() / "askpass", "Password for 'http://fleet@forge:3000': ", word)
    assert [asking() for _ in range(32)] == [f"{word}\n".encode()] * 32


def test_the_password_is_in_no_environment_and_no_file_while_git_works(host: Host) -> None:
    host.make_forge()
    look = host.forge / "hooks" / "pre-receive"
    look.write_text(f"""#!/bin/sh
        for own in $(grep -l {host.home} /proc/[0-9]*/environ 2>/dev/null); do
            cat $own
            for file in ${{own%environ}}fd/[3-9]; do timeout 0.2 head -c 100 $file; done
        done > {host.place}/seen 2>/dev/null; exit 0
    """)
    look.chmod(0o755)
    host.on_forge("echo one > file", credentials={"username": "fleet", "password": "s3cret-word"})
    assert host.result()["pushed"]
    seen = (host.place / "seen").read_bytes()
    assert b"FLEET_GIT_USERNAME=fleet" in seen and b"s3cret-word" not in seen


def test_the_password_is_masked_in_what_git_says(host: Host) -> None:
    host.make_forge()
    refuse = host.forge / "hooks" / "pre-receive"
    refuse.write_text("#!/bin/sh\necho not with s3cret you do >&2\nexit 1\n")
    refuse.chmod(0o755)
    host.on_forge("echo one > file", credentials={"username": "fleet", "password": "s3cret"})
    reason = host.result()["reason"]
    assert "not with *** you do" in reason and "s3cret" not in reason


# -------------------------------------------------------------------------------------------------------- cancel
def test_a_cancel_ends_an_agent_that_ignores_term_and_its_children(host: Host) -> None:
    host.start("trap '' TERM; sleep 60 & echo $!; while :; do sleep 0.05; done")
    state = host.working()
    child = int(eventually(lambda: host.said().strip()))
    assert host.ask("cancel", run="t-12.1", grace_secs=0.2)["state"] == "cancelling"
    assert host.result()["end"] == "cancelled"
    assert not is_running(state["agent_pid"]) and not is_running(child)
    assert host.ask("cancel", run="t-12.1")["state"] == "ended"


def test_a_cancel_before_the_start_leaves_a_tombstone(host: Host) -> None:
    assert host.ask("cancel", run="t-12.1")["state"] == "unknown"
    assert host.start("echo too late")["state"] == "cancelled"
    assert host.poll()["result"]["end"] == "cancelled"
    assert not (host.folder() / "stdout.log").exists()


def test_a_cancel_during_prepare_means_the_agent_is_never_started(host: Host) -> None:
    host.on_forge("true")
    host.result()
    with held(host.mirror().with_name(host.mirror().name + ".lock")):
        host.on_forge("echo started", fence=2)
        host.ask("cancel", run="t-12.2")
        result = host.result("t-12.2")
    assert (result["end"], result["step"]) == ("cancelled", "prepare")
    assert host.state("t-12.2")["agent_pid"] is None


def test_a_cancel_while_pushing_tells_the_truth_about_the_push(host: Host) -> None:
    host.make_forge()
    slow = host.forge / "hooks" / "pre-receive"
    slow.write_text(f"#!/bin/sh\ntouch {host.place}/pushing\nsleep 0.5\n")
    slow.chmod(0o755)
    host.on_forge("echo one > file", limits={"grace_secs": 5})
    eventually((host.place / "pushing").exists)
    assert host.ask("cancel", run="t-12.1")["state"] == "cancelling"
    result = host.result()
    assert (result["end"], result["pushed"]) == ("cancelled", True)
    assert host.forge_git("rev-parse", "task/12-fix") == result["head"]


def test_a_push_that_hangs_is_killed_by_a_cancel_and_not_called_pushed(host: Host) -> None:
    host.make_forge()
    slow = host.forge / "hooks" / "pre-receive"
    slow.write_text(f"#!/bin/sh\ntouch {host.place}/pushing\nexec sleep 8 <&- >&- 2>&-\n")
    slow.chmod(0o755)
    host.on_forge("echo one > file", limits={"grace_secs": 0.3})
    eventually((host.place / "pushing").exists)
    host.ask("cancel", run="t-12.1")
    result = host.result()
    assert (result["end"], result["pushed"]) == ("cancelled", False)


class held:
    """Another process' lock."""

    def __init__(self, path: Path) -> None:
        self.file = path.open("a")

    def __enter__(self) -> None:
        import fcntl

        fcntl.flock(self.file, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        self.file.close()


# ---------------------------------------------------------------------------------------------------------- poll
def test_logs_come_without_gap_or_repeat_under_a_small_limit(host: Host) -> None:
    host.start("seq 1 3000; seq 1 500 >&2")
    host.start("seq 1 200", run="u-1.1", task="u-1")
    heard = {run: {"stdout": b"", "stderr": b""} for run in ("t-12.1", "u-1.1")}
    for _ in range(200):
        runs = [{"run": run, **{name: len(text) for name, text in logs.items()}} for run, logs in heard.items()]
        answer = host.ask("poll", runs=runs, limit=600)["runs"]
        assert sum(len(data(answer[run][name])) for run in heard for name in ("stdout", "stderr")) <= 600
        for run, logs in heard.items():
            for name in logs:
                assert answer[run][name]["offset"] == len(logs[name])
                logs[name] += data(answer[run][name])
        if all(answer[r]["result"] and answer[r][n]["size"] == len(heard[r][n]) for r in heard for n in heard[r]):
            break
    assert heard["t-12.1"]["stdout"] == b"".join(b"%d\n" % n for n in range(1, 3001))
    assert heard["t-12.1"]["stderr"] == b"".join(b"%d\n" % n for n in range(1, 501))
    assert heard["u-1.1"]["stdout"] == b"".join(b"%d\n" % n for n in range(1, 201))


def test_a_run_nobody_started_is_not_known(host: Host) -> None:
    answer = host.ask("poll", runs=[{"run": "t-12.1", "stdout": 0, "stderr": 0}])
    assert answer["runs"] == {"t-12.1": {"known": False}}
    assert answer["boot_id"]
    assert abs(answer["now"] - time.time()) < 30


# ------------------------------------------------------------------------------------------------------- release
def released(host: Host, **changes: Any) -> Json:
    wish = {"run": "t-12.1", "task": "t-12", "worktree": True, "repository": host.repository(), **changes}
    return host.ask("release", **wish)


def test_release_deletes_what_is_pushed(host: Host) -> None:
    host.finished("echo one > file")
    assert released(host) == {"released": True, "saved": None}
    assert not host.folder().exists() and not host.worktree.exists()
    assert git("--git-dir", str(host.mirror()), "branch", "--list") == ""
    assert released(host) == {"released": True, "saved": None}
    host.finished("cat file", fence=2)


def test_release_saves_dirty_work_on_the_forge(host: Host) -> None:
    host.on_forge("echo half > file; exit 1")
    host.result()
    assert released(host)["saved"] == "refs/heads/wip/t-12"
    assert host.forge_git("show", "wip/t-12:file") == "half"
    assert not host.worktree.exists()


def test_release_saves_a_bundle_where_the_forge_cannot_be_reached(host: Host) -> None:
    host.on_forge("echo half > file; exit 1")
    host.result()
    host.forge.rename(host.place / "gone.git")
    saved = released(host)["saved"]
    assert saved == str(host.home / "saved" / "i1-t-12-1.bundle")
    rescued = host.place / "rescued"
    git("clone", "--quiet", str(host.place / "gone.git"), str(rescued))
    git("-C", str(rescued), "fetch", "--quiet", saved, "HEAD")
    assert git("-C", str(rescued), "show", "FETCH_HEAD:file") == "half"


def test_release_without_worktree_keeps_it(host: Host) -> None:
    host.finished("echo one > file")
    assert released(host, worktree=False)["saved"] is None
    assert host.worktree.exists() and not host.folder().exists()


def test_release_packs_a_folder_without_repository(host: Host) -> None:
    host.start("echo made > file")
    host.result()
    saved = released(host, repository=None)["saved"]
    assert saved == str(host.home / "saved" / "i1-t-12-1.tar.gz")
    assert not host.worktree.exists()


def test_release_of_a_run_that_is_still_going_is_refused(host: Host) -> None:
    host.start("sleep 60")
    host.working()
    code, answer = host.call("release", {"home": str(host.home), "instance": "i1", "run": "t-12.1", "task": "t-12"})
    assert code == 2 and "still going" in answer["error"]
    assert host.worktree.exists()


def test_release_of_an_old_run_leaves_the_worktree_a_new_one_works_in(host: Host) -> None:
    host.start("true")
    host.result()
    host.start("sleep 60", fence=2)
    host.working("t-12.2")
    wish = {"home": str(host.home), "instance": "i1", "run": "t-12.1", "task": "t-12", "worktree": True}
    code, answer = host.call("release", wish)
    assert code == 2 and "another run" in answer["error"]


# --------------------------------------------------------------------------------------------------------- probe
def test_probe_tells_what_the_host_is_and_has(host: Host) -> None:
    slow = ["sh", "-c", "sleep 60"]
    began = time.monotonic()
    answer = host.ask(
        "probe", clis={"one": ["echo", "one 1.2"], "none": ["no-such-cli"], "slow": slow, "bad": ["false"]}
    )
    assert time.monotonic() - began < 9
    assert answer["clis"] == {"one": "one 1.2", "none": None, "slow": None, "bad": None}
    assert answer["git"].startswith("git version")
    assert answer["disk_free"] > 0 and answer["memory_available"] > 0 and len(answer["load"]) == 3
