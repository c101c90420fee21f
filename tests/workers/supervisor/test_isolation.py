"""What a CLI can see of others that work for the same user on the same host: with the kernel's own means, as `ps e` has them."""

import ctypes
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.summary import had, lacks
from tests.workers.supervisor.test_supervisor import SUPERVISOR, Json, eventually, read, told
from workers.hosts import diagnose

NOBODY = 65534
KEY, APART = "key-of-another-cli", "CLIs that are kept apart"
LOOK = "cat /proc/[0-9]*/environ > seen 2> /dev/null; ls /proc/$PPID/fd > mine 2>&1; env > own"


class User:
    """An account with the fleet's folder in its home, and no rights beyond its own: root may look at everything."""

    def __init__(self, home: Path) -> None:
        self.home, self.python = home, sys.executable
        self.how: Json = {}
        self.more: Json = {}
        shutil.copy(SUPERVISOR, home / "supervisor.py")
        if os.geteuid() == 0:
            self.python, self.how = "/usr/bin/python3", {"user": NOBODY, "group": NOBODY, "extra_groups": []}
            os.chown(home, NOBODY, NOBODY)
            home.chmod(0o755)

    @property
    def env(self) -> dict[str, str]:
        """As a login has it."""
        return {
            "PATH": f"{self.home}/.local/bin:/usr/local/bin:/usr/bin:/bin",
            "HOME": str(self.home),
            "SHELL": "/bin/sh",
        }

    def run(self, *argv: str) -> str:
        return subprocess.run(
            argv, cwd=self.home, env=self.env, stdout=subprocess.PIPE, check=True, text=True, **self.how
        ).stdout

    def own(self, program: str, script: str) -> None:
        """Put a program of this user's into the first folder of its PATH."""
        path = self.home / ".local" / "bin" / program
        self.run("mkdir", "-p", str(path.parent))
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def start(self, run: str, script: str, *checks: str, hooks: Json | None = None, **agent: Any) -> None:
        limits = {"wall_secs": 30, "grace_secs": 0.2}
        wish = {"home": str(self.home / "fleet"), "instance": "i1", "run": f"{run}.1", "task": run, "limits": limits, "validation": checks, "hooks": hooks, **self.more,
                "agent": {"argv": ["sh", "-c", script], "prompt": "", **agent}}  # fmt: skip
        argv = [self.python, "-I", "-S", str(self.home / "supervisor.py"), "start"]
        done = subprocess.run(
            argv,
            input=json.dumps(wish).encode(),
            stdout=subprocess.PIPE,
            check=False,
            cwd=self.home,
            env=self.env,
            **self.how,
        )
        assert told(done.stdout).get("state") == "started", done.stdout

    def work(self, run: str) -> Path:
        return self.home / "fleet" / "work" / "i1" / run

    def folder(self, run: str) -> Path:
        return self.home / "fleet" / "runs" / "i1" / f"{run}.1"

    def result(self, run: str, secs: float = 20) -> Json:
        found: Json = eventually(lambda: read(self.folder(run) / "result.json"), secs)
        return found

    def said(self, run: str) -> list[str]:
        """The end of what its CLI printed."""
        return [(self.folder(run) / f"{name}.log").read_text()[-2000:] for name in ("stdout", "stderr")]

    def take_over(self) -> None:
        """Have all that was put into its home by others, programs apart."""
        if os.geteuid() == 0:
            for path in self.home.rglob("*"):
                if "node_modules" not in path.parts:
                    os.chown(path, NOBODY, NOBODY, follow_symlinks=False)


@pytest.fixture
def user() -> Iterator[User]:
    with tempfile.TemporaryDirectory(prefix="fleet-apart-") as folder:
        user = User(Path(folder))
        if not os.access(user.python, os.X_OK):
            pytest.skip("there is no Python that everybody may use")
        yield user


@pytest.fixture
def delivering(user: User) -> User:
    """A user whose runs deliver, with a password."""
    user.run("git", "init", "--quiet", "--initial-branch=main", "seed")
    user.run("sh", "-c", "echo hello > seed/README; git -C seed add README")
    signed = ("-c", "user.name=a", "-c", "user.email=a@b")
    user.run("git", "-C", "seed", *signed, "commit", "--quiet", "-m", "first")
    user.run("git", "clone", "--quiet", "--bare", "seed", "forge.git")
    url = f"file://{user.home}/forge.git"
    user.more = {
        "repository": {"url": url, "base": "main", "branch": "task/1"},
        "credentials": {"username": "fleet", "password": "s3cret"},
        "delivery": {"message": "Fix it", "author_name": "Fleet", "author_email": "fleet@example.org"},
    }
    return user


def abi() -> int:
    """Of the kernel's Landlock; negative without. Six and more keep processes apart."""
    return int(ctypes.CDLL(None).syscall(444, None, ctypes.c_size_t(0), 1)) if sys.platform == "linux" else -1


def looked(user: User, *checks: str, script: str = LOOK, **agent: Any) -> tuple[str, str]:
    """What one run saw of the environments of all, and of its supervisor's files, while another CLI with a key worked."""
    user.start("other", "touch works; until [ -e done ]; do sleep 0.05; done", env={"OTHER_KEY": KEY})
    eventually((user.work("other") / "works").exists)
    user.start("mine", script, *checks, env={"MY_KEY": "key-of-mine"}, **agent)
    assert user.result("mine")["end"] == "finished"
    (user.work("other") / "done").touch()
    assert user.result("other")["end"] == "finished"
    place = user.work("mine")
    return (place / "seen").read_bytes().decode(errors="replace"), (place / "mine").read_text()


@pytest.fixture
def kept_apart() -> None:
    kernel = os.uname().release
    if abi() < 6:
        lacks(APART, f"this kernel cannot ({kernel}); Linux 6.12 and newer can")
    had(APART, f"CLIs were kept apart by Linux {kernel}")


@pytest.mark.usefixtures("kept_apart")
class TestAnotherClisKey:
    def test_is_not_seen_by_a_cli_which_sees_its_own(self, user: User) -> None:
        seen, _ = looked(user)
        assert KEY not in seen and "key-of-mine" in seen

    def test_is_not_seen_by_what_the_repository_runs_where_that_is_wished(self, user: User) -> None:
        seen, _ = looked(user, LOOK, script="true", checks_apart=True)
        assert KEY not in seen and "FLEET_RUN=mine.1" in seen


@pytest.mark.usefixtures("kept_apart")
class TestNewPrivileges:
    """As sudo, snap, newuidmap need them."""

    PRIVILEGES = "grep NoNewPrivs /proc/self/status"

    def test_are_for_hooks_and_checks_and_not_for_the_cli(self, user: User) -> None:
        hooks = {"after_prepare": [self.PRIVILEGES]}
        user.start("mine", f"{self.PRIVILEGES} > own", self.PRIVILEGES, hooks=hooks)
        result = user.result("mine")
        told = [note["tail"].split() for note in (*result["hooks"], *result["validation"])]
        assert told == [["NoNewPrivs:", "0"]] * 2
        assert (user.work("mine") / "own").read_text().split() == ["NoNewPrivs:", "1"]

    def test_are_for_none_of_the_programs_that_a_cli_may_have_left_for_us_to_run(self, user: User) -> None:
        note = f"{self.PRIVILEGES} > {user.home}/{{}}"
        user.run("sh", "-c", f"echo '{note.format('profile')}' > .profile")
        asked = ["sh", "-c", f"{note.format('version')}; echo mytool 1.2.3"]
        flags = [{"since": "1.0", "argv": ["true"]}]
        user.start("mine", "", argv=["nowhere"], version=asked, flags=flags)
        assert user.result("mine")["failure"] == "cli_missing"
        for name in ("profile", "version"):
            assert (user.home / name).read_text().split() == ["NoNewPrivs:", "1"], name

    def test_are_not_for_filters_that_a_cli_left_in_a_submodule(self, delivering: User) -> None:
        local, signed = ("-c", "protocol.file.allow=always"), ("-c", "user.name=a", "-c", "user.email=a@b")
        url = delivering.more["repository"]["url"]
        delivering.run("git", *local, "-C", "seed", "submodule", "--quiet", "add", url, "lib")
        delivering.run("git", *signed, "-C", "seed", "commit", "--quiet", "-m", "lib")
        delivering.run("git", "-C", "seed", "push", "--quiet", url, "main")
        filtered = delivering.home / "filtered"
        clean = f"{self.PRIVILEGES} >> {filtered}; cat"
        script = f"git -C lib config filter.x.clean '{clean}'; echo '* filter=x' > lib/.gitattributes; echo jello > lib/README; echo > new"
        delivering.start("mine", script)
        assert delivering.result("mine")["failure"] == "submodule_changed"
        assert set(filtered.read_text().split()) == {"NoNewPrivs:", "1"}

    def test_are_what_the_reason_speaks_of_where_a_program_missed_them(self, user: User) -> None:
        sudo = """echo 'sudo: The "no new privileges" flag is set'; exit 1"""
        user.start("check", "true", sudo, checks_apart=True)
        assert "`checks_apart = false` for the CLI" in user.result("check")["reason"]
        user.start("hook", "true", checks_apart=True, hooks={"after_agent": [sudo]})
        assert "`checks_apart = false` for the CLI" in user.result("hook")["reason"]
        user.start("cli", sudo)
        assert "`apart = false` for the CLI" in user.result("cli")["reason"]
        user.start("other", "true", sudo)
        assert "apart" not in user.result("other")["reason"]


def refuses(number: int) -> Callable[[], None]:
    """Have the kernel refuse a system call of Landlock's to a process and its children, but not the question for its
    version."""
    load, equal, answer = 0x20, 0x15, 0x06
    unless_asked = [(load, 0, 0, 32), (equal, 1, 0, 1)] if number == 444 else []
    program = [(load, 0, 0, 0), (equal, 0, 1 + len(unless_asked), number), *unless_asked, (answer, 0, 0, 0x50000 | 22),
               (answer, 0, 0, 0x7FFF0000)]  # fmt: skip

    def refuse() -> None:
        code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *one) for one in program))
        whole = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(program), ctypes.addressof(code)))
        prctl = ctypes.CDLL(None).prctl
        assert prctl(38, 1, 0, 0, 0) == 0 and prctl(22, 2, whole, 0, 0) == 0  # PR_SET_SECCOMP

    return refuse


@pytest.mark.usefixtures("kept_apart")
@pytest.mark.parametrize("number", [444, 446])
def test_a_run_that_the_kernel_does_not_keep_apart_goes_on_once_and_says_so(user: User, number: int) -> None:
    user.how["preexec_fn"] = refuses(number)
    user.start("mine", "echo ran >> ran", "echo checked >> ran", apart=True)
    result = user.result("mine")
    assert (result["end"], result["reason"]) == ("finished", None)
    (said,) = result["warnings"]
    assert said.startswith("process isolation (Landlock) failed")
    assert (user.work("mine") / "ran").read_text() == "ran\nchecked\n"


def test_a_probe_tells_whether_a_host_can_and_of_the_git_that_is_used(user: User) -> None:
    user.own("git", "echo of its own")
    argv = [user.python, "-I", "-S", str(user.home / "supervisor.py"), "probe"]
    done = subprocess.run(
        argv, input=b"{}", stdout=subprocess.PIPE, check=True, cwd=user.home, env=user.env, **user.how
    )
    answer = told(done.stdout)
    assert answer["apart"] is (abi() >= 6)
    assert answer["git"].startswith("git version")


@pytest.mark.parametrize("can", [True, False])
def test_a_walk_to_a_host_says_of_clis_and_of_checks_what_is_so(can: bool) -> None:
    answer = {"now": 0.0, "git": "git version 2", "lfs": True, "apart": can, "clis": {}, "missing": [], "disk_free": 1}
    steps = diagnose._what_is_there(lambda _verb, _asked: answer, {"home": "~", "clis": {}, "least_disk": 0})
    said = next(step["sentence"] for step in steps if step["step"] == "apart")
    assert ("no CLI there can" in said and "`checks_apart = true`" in said) is can


def test_where_clis_are_not_kept_apart_their_supervisors_are_closed_even_so(user: User) -> None:
    seen, files = looked(user, apart=False)
    assert KEY in seen, "this is what `apart` is for"
    assert "ermission denied" in files


class TestTheForgesPassword:
    STEAL = 'echo "$@" >> "$(dirname "$0")/stolen"; exec {} "$@"'

    def test_is_heard_by_no_git_that_a_cli_put_into_its_home(self, delivering: User) -> None:
        delivering.own("git", self.STEAL.format("/usr/bin/git"))
        delivering.start("mine", "echo new > new")
        result = delivering.result("mine")
        assert (result["pushed"], result["warnings"]) == (True, [])
        assert not (delivering.home / ".local" / "bin" / "stolen").exists()

    def test_is_heard_by_a_replaceable_git_only_where_there_is_no_other_and_with_a_warning(
        self, delivering: User
    ) -> None:
        delivering.own("git", 'exec /usr/bin/git "$@"')
        delivering.more["path"] = f"{delivering.home}/.local/bin"
        delivering.start("mine", "/bin/echo new > new")
        result = delivering.result("mine")
        assert [
            f"git is run from {delivering.home}/.local/bin, where any CLI" in said for said in result["warnings"]
        ] == [True]
