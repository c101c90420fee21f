"""The lines that a process keeps: one connection a host, the supervisor pushed once, failures rested."""

import os
import signal
import stat
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from app.domain.host import Fitness
from tests.patience import patient, wait_until
from tests.silence import wire
from tests.sshd import Sshd
from tests.workers.conftest import QUICK, as_row, request
from workers.errors import Distrusted, LeftAlone, Unreachable
from workers.hosts import client
from workers.ssh import pool as connections
from workers.ssh.pool import Kept, address_of
from workers.supervisor import bundle


def asked(kept: Kept, sshd: Sshd, verb: str = "probe", **given: Any) -> dict[str, Any]:
    return kept.ask(verb, request(sshd, **given))


def a_start(sshd: Sshd, run: str = "t-1.1", script: str = "sleep 0.2; echo done", **given: Any) -> dict[str, Any]:
    agent = {"argv": ["sh", "-c", script], "prompt": "do it", "env": {"A_KEY": "hunter2-of-the-agent"}}
    return request(sshd, run=run, task=run.partition(".")[0], agent=agent, heartbeat_secs=0.2, **given)


def until_ended(host: Any, sshd: Sshd, run: str = "t-1.1") -> dict[str, Any]:
    def ended() -> dict[str, Any] | None:
        seen: dict[str, Any] = client.ask(host, "poll", request(sshd, runs=[{"run": run}]))["runs"][run]
        return seen if seen.get("result") else None

    return wait_until(ended, f"the end of {run}", 30) or {}


class TestFooting:
    def test_the_supervisor_is_pushed_once_whole_and_for_our_eyes_only(self, sshd: Sshd) -> None:
        kept = Kept(address_of(as_row(sshd.declared())))
        assert asked(kept, sshd)["boot_id"] == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        code, sha = bundle.source(), bundle.sha256()
        path = sshd.work() / "bin" / f"{sha}.py"
        assert path.read_bytes() == code
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        written = path.stat().st_mtime_ns
        kept.close()
        asked(kept, sshd)
        assert path.stat().st_mtime_ns == written
        assert not list(path.parent.glob("*.py.*"))
        kept.close()

    def test_one_that_was_changed_or_deleted_there_is_pushed_again(self, sshd: Sshd) -> None:
        kept = Kept(address_of(as_row(sshd.declared())))
        asked(kept, sshd)
        code, sha = bundle.source(), bundle.sha256()
        for file in (sshd.work() / "bin").iterdir():
            file.unlink()
        asked(kept, sshd)
        (sshd.work() / "bin" / f"{sha}.py").write_bytes(code[:1000])
        kept.close()
        asked(kept, sshd)
        assert (sshd.work() / "bin" / f"{sha}.py").read_bytes() == code
        kept.close()

    def test_one_that_another_program_there_rewrote_hears_nothing(self, sshd: Sshd) -> None:
        host = as_row(sshd.declared())
        client.ask(host, "probe", request(sshd))
        (path,) = (sshd.work() / "bin").iterdir()
        evil = f"import sys; open({str(sshd.folder / 'stolen')!r}, 'wb').write(sys.stdin.buffer.read(10))\n"
        path.write_text(evil)
        for place in (path.with_suffix(".cpython-311.pyc"), path.parent / "hashlib.py", path.parent / "os.py"):
            place.write_text(evil)
        connections.to(host).hang_up(0)
        assert client.ask(
            host,
            "probe",
            request(sshd),
        )["git"], "it was pushed again"
        assert path.read_bytes() == bundle.source()
        assert not (sshd.folder / "stolen").exists()

    def test_programs_are_found_as_in_a_login(self, sshd: Sshd) -> None:
        tools = sshd.home / "tools"
        tools.mkdir()
        (tools / "mytool").write_text("#!/bin/sh\necho mytool 7.1\n")
        (tools / "mytool").chmod(0o755)
        for profile in (".profile", ".bash_profile", ".zprofile"):
            (sshd.home / profile).write_text(f'echo "a greeting from a profile"\nexport PATH="$PATH:{tools}"\n')
        kept = Kept(address_of(as_row(sshd.declared())))
        answer = asked(kept, sshd, clis={"mytool": ["mytool", "--version"], "another": ["nowhere", "--version"]})
        assert answer["clis"] == {"mytool": "mytool 7.1", "another": None}
        kept.close()

    def test_a_login_shell_that_talks_at_every_session_disturbs_nothing(self, sshd: Sshd) -> None:
        (sshd.home / ".bashrc").write_text("echo hello from bashrc\n")
        host = as_row(sshd.declared())
        assert client.ask(host, "probe", request(sshd))["git"]

    def test_a_path_that_could_not_go_on_a_command_line_is_refused_with_what_to_do(self, sshd: Sshd) -> None:
        kept = Kept(address_of(as_row(sshd.declared())))
        with pytest.raises(Unreachable, match="set work_dir"):
            kept.ask("probe", {"home": "/tmp/$(touch x)", "instance": "i1"})
        kept.close()

    def test_a_tilde_is_the_home_of_the_user_there(self, sshd: Sshd) -> None:
        client.ask(as_row(sshd.declared()), "probe", {"home": "~/.agent-fleet", "instance": "i1"})
        assert list((sshd.home / ".agent-fleet" / "bin").glob("*.py"))


class TestStarts:
    def test_five_at_once_of_the_same_run_are_one_process(self, sshd: Sshd) -> None:
        host, mark = as_row(sshd.declared()), sshd.folder / "starts"
        start = a_start(sshd, script=f"echo once >> {mark}; sleep 0.3")
        with ThreadPoolExecutor(5) as pool:
            answers = list(pool.map(lambda _: client.ask(host, "start", start), range(5)))
        assert sorted(answer["state"] for answer in answers) == ["known"] * 4 + ["started"]
        assert len({answer["pid"] for answer in answers}) == 1
        until_ended(host, sshd)
        assert mark.read_text() == "once\n"

    def test_a_start_whose_answer_is_lost_is_found_and_not_made_again(self, sshd: Sshd) -> None:
        mark = sshd.folder / "starts"
        with wire(sshd.addresses[0], sshd.port) as silent:
            host = as_row(sshd.declared(ssh_port=silent.port))
            connections._kept[host["host_id"]] = (address_of(host), None, Kept(address_of(host), QUICK, {"start": 1.0}))
            client.ask(host, "probe", request(sshd))
            silent.deaf_after = 30_000
            start = a_start(sshd, script=f"echo once >> {mark}; sleep 0.3")
            start["agent"]["prompt"] = "do it " * 10_000
            with pytest.raises(Unreachable, match="took longer"):
                client.ask(host, "start", start)
        host = as_row(sshd.declared())
        seen = until_ended(host, sshd)
        assert seen["result"]["end"] == "finished"
        assert client.ask(host, "start", a_start(sshd, script=f"echo once >> {mark}"))["state"] == "known"
        assert mark.read_text() == "once\n"

    def test_nothing_secret_is_in_any_argv_or_environment_of_either_side(self, sshd: Sshd) -> None:
        host = as_row(sshd.declared())
        credentials = {"username": "fleet", "password": "hunter2-of-the-forge"}
        seen: list[str] = []
        watching = threading.Event()

        def watch() -> None:
            while not watching.is_set():
                seen.extend(argv_and_environment(sshd))

        watcher = threading.Thread(target=watch)
        watcher.start()
        script = f"until [ -e {sshd.folder}/go ]; do sleep 0.02; done"
        client.ask(host, "start", a_start(sshd, credentials=credentials, script=script))
        wait_until(lambda: any("A_KEY=" in line for line in list(seen)), "the agent is seen at work")
        (sshd.folder / "go").touch()
        ended = until_ended(host, sshd)
        watching.set()
        watcher.join()
        assert ended["result"]["end"] == "finished"
        assert any("-I" in line and "serve" in line for line in seen)  # we did look at the right moment
        assert not any("hunter2" in line for line in seen if "A_KEY=" not in line)
        ours = [line for line in seen if "A_KEY=" in line]
        assert all("sleep" in line for line in ours)  # the agent itself has its own key, and no other process has


def argv_and_environment(sshd: Sshd) -> list[str]:
    """Of each process of this test, what others may read of it: argv, and the environment with it."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            environ = (path / "environ").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            argv = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(sshd.folder) in environ + argv:
            found.append(f"{argv} {environ}")
    return found


def until_serving(sshd: Sshd, count: int) -> set[int]:
    """The supervisors that stay on the line, once there are at most so many."""
    found: set[int] = set()

    def are_few() -> bool:
        found.clear()
        found.update(one.pid for one in sshd.processes() if serves(one))
        return len(found) <= count

    wait_until(are_few, f"at most {count} supervisors stay connected", 20)
    return found


def serves(process: psutil.Process) -> bool:
    try:
        return bool(process.cmdline()[-1:] == ["serve"])
    except psutil.Error:  # it ended a moment ago
        return False


class TestConnections:
    def test_one_is_kept_for_all_threads(self, sshd: Sshd) -> None:
        with wire(sshd.addresses[0], sshd.port) as counted:
            host = as_row(sshd.declared(ssh_port=counted.port))
            with ThreadPoolExecutor(8) as pool:
                list(pool.map(lambda _: client.ask(host, "probe", request(sshd)), range(16)))
            assert counted.connections == 1

    def test_a_dead_one_is_made_anew_without_anybody_noticing(self, sshd: Sshd) -> None:
        host = as_row(sshd.declared())
        client.ask(host, "probe", request(sshd))
        sshd.cut()
        assert client.ask(host, "probe", request(sshd))["git"]

    def test_a_supervisor_stays_on_the_line_and_is_missed_by_nobody(self, sshd: Sshd) -> None:
        host = as_row(sshd.declared())
        with ThreadPoolExecutor(6) as pool:
            list(pool.map(lambda _: client.ask(host, "poll", request(sshd, runs=[])), range(12)))
        serving = until_serving(sshd, 2)
        client.ask(host, "start", a_start(sshd))
        assert until_serving(sshd, 2) & serving
        for pid in until_serving(sshd, 2):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        assert until_ended(host, sshd)["result"]["end"] == "finished"
        connections.to(host).hang_up(0)
        until_serving(sshd, 0)

    def test_a_child_of_this_process_makes_its_own(self, sshd: Sshd) -> None:
        host = as_row(sshd.declared())
        client.ask(host, "probe", request(sshd))
        hear, say = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.write(say, b"fine" if client.ask(host, "probe", request(sshd))["git"] else b"none")
            os._exit(0)
        os.close(say)
        with os.fdopen(hear, "rb") as pipe:
            assert pipe.read() == b"fine"
        os.waitpid(pid, 0)
        assert client.ask(host, "probe", request(sshd))["git"]

    def test_another_address_is_another_line(self, sshd: Sshd) -> None:
        first, second = as_row(sshd.declared(0)), as_row(sshd.declared(1, host_id="host-1"))
        assert connections.to(first) is connections.to(first)
        assert connections.to(second) is not connections.to(first)


class TestFailures:
    def test_a_host_that_failed_is_left_alone_for_a_moment(self, sshd: Sshd) -> None:
        host = as_row(sshd.declared(ssh_port=1))
        heard: list[str] = []
        client.tell(lambda host, why: heard.append(f"{host['host_id']}: {why}"))
        with pytest.raises(Unreachable, match="refused"):
            client.ask(host, "probe", request(sshd))
        began = time.monotonic()
        with pytest.raises(LeftAlone, match="asked again"):
            client.ask(host, "probe", request(sshd))
        assert time.monotonic() - began < patient(0.5)
        assert len(heard) == 1 and "refused" in heard[0]

    def test_a_host_with_another_key_is_told_of_once_and_not_called_again(self, sshd: Sshd) -> None:
        declared = sshd.declared()
        host = as_row(declared)
        sshd.change_host_key()
        heard: list[Unreachable] = []
        client.tell(lambda _, why: heard.append(why))
        with pytest.raises(Distrusted, match="host-1 did not answer `probe`: host key changed"):
            client.ask(host, "probe", request(sshd))
        for _ in range(3):
            with pytest.raises(LeftAlone):
                client.ask(host, "probe", request(sshd))
        assert [type(why) for why in heard] == [Distrusted]
        with pytest.raises(Distrusted):  # an operator has said since that it may be tried
            client.ask(as_row(declared, since="later"), "probe", request(sshd))

    def test_a_host_in_quarantine_is_not_called(self, sshd: Sshd) -> None:
        with wire(sshd.addresses[0], sshd.port) as counted:
            host = as_row(sshd.declared(ssh_port=counted.port), fitness=Fitness.QUARANTINED, why="host key changed")
            with pytest.raises(Unreachable, match="quarantine, and is not asked: host key changed"):
                client.ask(host, "probe", request(sshd))
            assert counted.connections == 0

    def test_one_black_hole_holds_up_no_other_host(self, sshd: Sshd) -> None:
        with wire(sshd.addresses[0], sshd.port, silent=True) as silent:
            dead = Kept(address_of(as_row(sshd.declared(ssh_port=silent.port))), QUICK)
            alive = Kept(address_of(as_row(sshd.declared(1))))
            asked(alive, sshd)
            with ThreadPoolExecutor(4) as pool:
                calls = [pool.submit(dead.ask, "poll", request(sshd, runs=[])) for _ in range(3)]
                answered = 0
                while not all(call.done() for call in calls):
                    asked(alive, sshd, "poll", runs=[])
                    answered += 1
                assert answered > 3
                assert all(isinstance(call.exception(), Unreachable) for call in calls)
            alive.close()


class TestBulk:
    def test_a_hundred_megabytes_arrive_whole_in_bounded_memory(self, sshd: Sshd) -> None:
        import hashlib

        host, size = as_row(sshd.declared()), 100 << 20
        piece = bytes(range(256)) * 4096
        script = f"for i in $(seq {size // len(piece)}); do cat {sshd.folder}/piece; done"
        (sshd.folder / "piece").write_bytes(piece)
        client.ask(host, "start", a_start(sshd, script=script))
        until_ended_without_log(host, sshd)
        process, digest, offset, most = psutil.Process(), hashlib.sha256(), 0, 0
        before = process.memory_info().rss
        while offset < size:
            asked_for = request(sshd, runs=[{"run": "t-1.1", "stdout": offset, "stderr": 0}], limit=8 << 20)
            data = client.ask(host, "poll", asked_for)["runs"]["t-1.1"]["stdout"]["data"]
            digest.update(data)
            offset += len(data)
            most = max(most, process.memory_info().rss - before)
        assert digest.hexdigest() == hashlib.sha256(piece * (size // len(piece))).hexdigest()
        assert most < 100 << 20


def until_ended_without_log(host: Any, sshd: Sshd) -> None:
    asked_for = request(sshd, runs=[{"run": "t-1.1"}], limit=1)
    wait_until(lambda: client.ask(host, "poll", asked_for)["runs"]["t-1.1"].get("result"), "the end of the run", 60)


@pytest.fixture(autouse=True)
def _no_listener_is_left() -> Any:
    yield
    client._listeners.clear()
