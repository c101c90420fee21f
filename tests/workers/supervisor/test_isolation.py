"""A CLI cannot inspect other processes of its user."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable

import pytest

from app.domain.host import Probe
from tests.workers.supervisor.account import INSPECT, KEY, User, inspected
from workers.hosts import diagnose


@pytest.mark.usefixtures("isolating")
class TestTheKeyOfAnotherCli:
    def test_cannot_be_read_by_a_cli(self, user: User) -> None:
        seen, _ = inspected(user)
        assert KEY not in seen and "key-of-mine" in seen

    def test_cannot_be_read_by_checks_that_are_isolated_on_request(self, user: User) -> None:
        seen, _ = inspected(user, INSPECT, script="true", checks_apart=True)
        assert KEY not in seen and "FLEET_RUN=mine.1" in seen


@pytest.mark.usefixtures("isolating")
class TestNewPrivileges:
    """sudo, snap and newuidmap need them."""

    PRIVILEGES = "grep NoNewPrivs /proc/self/status"

    def test_are_possible_for_hooks_and_checks_but_not_for_the_cli(self, user: User) -> None:
        hooks = {"after_prepare": [self.PRIVILEGES]}
        user.start("mine", f"{self.PRIVILEGES} > own", self.PRIVILEGES, hooks=hooks)
        result = user.result("mine")
        status = [note["tail"].split() for note in (*result["hooks"], *result["validation"])]
        assert status == [["NoNewPrivs:", "0"]] * 2
        assert (user.workspace("mine") / "own").read_text().split() == ["NoNewPrivs:", "1"]

    def test_are_impossible_for_a_profile_and_a_version_command(self, user: User) -> None:
        note = f"{self.PRIVILEGES} > {user.home}/{{}}"
        user.run("sh", "-c", f"echo '{note.format('profile')}' > .profile")
        asked = ["sh", "-c", f"{note.format('version')}; echo mytool 1.2.3"]
        flags = [{"since": "1.0", "argv": ["true"]}]
        user.start("mine", "", argv=["nowhere"], version=asked, flags=flags)
        assert user.result("mine")["failure"] == "cli_missing"
        for name in ("profile", "version"):
            assert (user.home / name).read_text().split() == ["NoNewPrivs:", "1"], name

    def test_are_impossible_for_git_filters_in_a_submodule(self, delivering: User) -> None:
        local, signed = ("-c", "protocol.file.allow=always"), ("-c", "user.name=a", "-c", "user.email=a@b")
        url = delivering.request["repository"]["url"]
        delivering.run("git", *local, "-C", "seed", "submodule", "--quiet", "add", url, "lib")
        delivering.run("git", *signed, "-C", "seed", "commit", "--quiet", "-m", "lib")
        delivering.run("git", "-C", "seed", "push", "--quiet", url, "main")
        filtered = delivering.home / "filtered"
        clean = f"{self.PRIVILEGES} >> {filtered}; cat"
        script = f"git -C lib config filter.x.clean '{clean}'; echo '* filter=x' > lib/.gitattributes; echo jello > lib/README; echo > new"
        delivering.start("mine", script)
        assert delivering.result("mine")["failure"] == "submodule_changed"
        assert set(filtered.read_text().split()) == {"NoNewPrivs:", "1"}

    def test_that_a_program_lacks_are_explained_in_the_reason(self, user: User) -> None:
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
    """Return a function that makes the kernel refuse a Landlock system call, but not the query of its version."""
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


@pytest.mark.usefixtures("isolating")
@pytest.mark.parametrize("number", [444, 446])
def test_a_run_continues_with_a_warning_if_isolation_fails(user: User, number: int) -> None:
    user.how["preexec_fn"] = refuses(number)
    user.start("mine", "echo ran >> ran", "echo checked >> ran", apart=True)
    result = user.result("mine")
    assert (result["end"], result["reason"]) == ("finished", None)
    (said,) = result["warnings"]
    assert said.startswith("process isolation (Landlock) failed")
    assert (user.workspace("mine") / "ran").read_text() == "ran\nchecked\n"


@pytest.mark.parametrize("can", [True, False])
def test_the_host_test_says_whether_clis_and_checks_are_isolated(can: bool) -> None:
    seen = Probe(git="git version 2", lfs=True, apart=can, disk_free=1)
    steps = diagnose.judge_probe(seen, diagnose.Wanted({}, least_disk=0))
    said = next(step.sentence for step in steps if step.name == "apart")
    assert ("no CLI there can" in said and "`checks_apart = true`" in said) is can


def test_without_isolation_a_cli_still_cannot_inspect_its_supervisor(user: User) -> None:
    seen, files = inspected(user, apart=False)
    assert KEY in seen, "this is what `apart` is for"
    assert "ermission denied" in files
