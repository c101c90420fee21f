"""The SSH client, on a real sshd: keys are pinned, time and size are limited, many threads share a connection."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import psutil
import pytest

from app.domain.host import Address
from tests.patience import patient, wait_until
from tests.silent_proxy import nobody_accepts, wire
from tests.sshd import Sshd
from tests.workers.ssh.quick import QUICK
from workers.errors import NotSent, Unreachable, Untrusted
from workers.ssh.client import SshClient
from workers.ssh.connection import Timeouts, read_host_key
from workers.ssh.deadlines import Deadlines
from workers.ssh.host_keys import fingerprint

STAY = "while kill -0 $PPID 2>/dev/null; do sleep 0.1; done"  # silent, for as long as the session lives


def the_address(sshd: Sshd, **given: Any) -> Address:
    return replace(sshd.machine().address, **given)


@pytest.fixture
def deadlines() -> Iterator[Deadlines]:
    made = Deadlines()
    yield made
    made.close()


def within(secs: float, began: float) -> bool:
    """True if a timeout was kept, as far as a busy machine allows."""
    return time.monotonic() - began < secs + patient(8)


class TestTrust:
    def test_a_host_with_the_pinned_key_is_accepted(self, deadlines: Deadlines, sshd: Sshd) -> None:
        client = SshClient(the_address(sshd), deadlines)
        assert client.run("cat", b"hello") == (b"hello", b"")
        client.close()

    def test_one_of_several_pinned_keys_is_enough(self, deadlines: Deadlines, sshd: Sshd) -> None:
        keys = (sshd.make_key("another"), sshd.host_key + " with a comment")
        SshClient(the_address(sshd, host_keys=keys), deadlines).close()

    def test_another_key_is_refused_and_both_fingerprints_are_named(self, deadlines: Deadlines, sshd: Sshd) -> None:
        pinned = sshd.host_key
        sshd.change_host_key()
        with pytest.raises(Untrusted, match="host key changed") as refused:
            SshClient(the_address(sshd, host_keys=(pinned,)), deadlines)
        assert fingerprint(pinned) in str(refused.value)
        assert fingerprint(sshd.host_key) in str(refused.value)

    def test_a_host_without_a_pinned_key_is_not_contacted(self, deadlines: Deadlines, sshd: Sshd) -> None:
        with pytest.raises(Unreachable, match="no host key is pinned"):
            SshClient(the_address(sshd, host_keys=()), deadlines)

    def test_a_host_that_refuses_our_key_is_untrusted(self, deadlines: Deadlines, sshd: Sshd) -> None:
        sshd.make_key("stranger")
        with pytest.raises(Untrusted, match="refuses our key"):
            SshClient(the_address(sshd, key_path=str(sshd.folder / "stranger")), deadlines)

    def test_the_key_that_a_host_shows_can_be_read_without_a_login(self, deadlines: Deadlines, sshd: Sshd) -> None:
        assert read_host_key(the_address(sshd, host_keys=(), key_path=None), Timeouts(), deadlines) == sshd.host_key

    def test_a_missing_key_file_is_named(self, deadlines: Deadlines, sshd: Sshd) -> None:
        with pytest.raises(Unreachable, match="/nowhere/key cannot be read"):
            SshClient(the_address(sshd, key_path="/nowhere/key"), deadlines)

    def test_neither_the_ssh_config_nor_the_agent_of_the_user_is_used(
        self, deadlines: Deadlines, sshd: Sshd, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        config = sshd.home / ".ssh"
        config.mkdir()
        (config / "config").write_text("Host *\n  ProxyCommand false\n")
        (config / "id_ed25519").write_text((sshd.folder / "client_key").read_text())
        monkeypatch.setenv("HOME", str(sshd.home))
        monkeypatch.setenv("SSH_AUTH_SOCK", str(sshd.home / "no-agent"))
        with pytest.raises(Unreachable, match="no key is configured"):
            SshClient(the_address(sshd, key_path=None), deadlines)
        SshClient(the_address(sshd), deadlines).close()

    def test_the_keys_of_the_jump_host_and_of_the_host_are_both_pinned(self, deadlines: Deadlines, sshd: Sshd) -> None:
        jump = the_address(sshd, hostname=sshd.addresses[1])
        client = SshClient(the_address(sshd, jump=jump), deadlines)
        assert client.run("cat", b"through") == (b"through", b"")
        client.close()
        with pytest.raises(Untrusted, match="host key changed"):
            SshClient(the_address(sshd, jump=replace(jump, host_keys=(sshd.make_key("another"),))), deadlines)


class TestDeadlines:
    """The network drops all packets and refuses none. Each step ends by its own timeout."""

    def test_end_a_connection_attempt(self, deadlines: Deadlines, sshd: Sshd) -> None:
        with nobody_accepts(sshd.addresses[0]) as port:
            began = time.monotonic()
            with pytest.raises(Unreachable, match="took longer"):
                SshClient(the_address(sshd, port=port), deadlines, QUICK)
            assert within(QUICK.connect, began)

    def test_end_the_wait_for_the_banner(self, deadlines: Deadlines, sshd: Sshd) -> None:
        with wire(sshd.addresses[0], sshd.port, silent=True) as silent:
            began = time.monotonic()
            with pytest.raises(Unreachable, match="connecting"):
                SshClient(the_address(sshd, port=silent.port), deadlines, QUICK)
            assert within(QUICK.login, began)

    def test_end_the_authentication_and_leave_the_host_trusted(self, deadlines: Deadlines, sshd: Sshd) -> None:
        with wire(sshd.addresses[0], sshd.port, until_keys=True) as silent:
            began = time.monotonic()
            with pytest.raises(Unreachable) as late:
                SshClient(the_address(sshd, port=silent.port), deadlines, QUICK)
            assert not isinstance(late.value, Untrusted)
            assert within(QUICK.login, began)

    def test_end_the_opening_of_a_session(self, deadlines: Deadlines, sshd: Sshd) -> None:
        with wire(sshd.addresses[0], sshd.port) as silent:
            client = SshClient(the_address(sshd, port=silent.port), deadlines, QUICK)
            silent.silent = True
            began = time.monotonic()
            with pytest.raises(NotSent, match="took longer"):
                client.run("true")
            assert within(QUICK.channel, began)
            wait_until(lambda: not client.is_open, "the thread that reads the connection has closed it", 10)

    def test_end_an_answer_in_the_middle(self, deadlines: Deadlines, sshd: Sshd) -> None:
        with wire(sshd.addresses[0], sshd.port) as silent:
            client = SshClient(the_address(sshd, port=silent.port), deadlines, QUICK)
            began, greeting = time.monotonic(), silent.answered
            with ThreadPoolExecutor(1) as pool:
                asked = pool.submit(client.run, "while :; do echo more; sleep 0.01; done")
                wait_until(lambda: silent.answered > greeting + 500, "the host answers")
                silent.silent = True
                with pytest.raises(Unreachable, match="took longer"):
                    asked.result()
            assert within(QUICK.answer, began)
            client.close()

    def test_end_a_request_larger_than_every_buffer(self, deadlines: Deadlines, sshd: Sshd) -> None:
        with wire(sshd.addresses[0], sshd.port) as silent:
            client = SshClient(the_address(sshd, port=silent.port), deadlines, QUICK)
            client.run("true")
            began = time.monotonic()
            with pytest.raises(Unreachable):
                client.run(STAY, b"x" * (64 << 20))
            assert within(QUICK.answer, began)
            client.close()

    def test_end_no_session_but_the_late_one(self, deadlines: Deadlines, sshd: Sshd) -> None:
        client = SshClient(the_address(sshd), deadlines, replace(QUICK, answer=patient(20)))
        with ThreadPoolExecutor(1) as pool:
            other = pool.submit(client.run, "sleep 1.2; echo here")
            with pytest.raises(Unreachable, match=r"took longer than 0\.5 s"):
                client.run(STAY, secs=0.5)
            assert other.result() == (b"here\n", b"")
        client.close()

    def test_leave_no_thread_behind(self, deadlines: Deadlines, sshd: Sshd) -> None:
        before = {thread.name for thread in threading.enumerate()}
        with wire(sshd.addresses[0], sshd.port) as silent:
            client = SshClient(the_address(sshd, port=silent.port), deadlines, QUICK)
            silent.silent = True
            with pytest.raises(Unreachable):
                client.run("true")
            client.close()
            wait_until(lambda: not client.is_open and threads_of(client) <= before, "its thread has ended", 10)


def threads_of(client: SshClient) -> set[str]:
    """The names of the threads that read connections."""
    return {thread.name for thread in threading.enumerate() if isinstance(thread, type(client._transport))}


class TestSessions:
    def test_many_threads_share_one_connection(self, deadlines: Deadlines, sshd: Sshd) -> None:
        client = SshClient(the_address(sshd), deadlines)
        with ThreadPoolExecutor(16) as pool:
            said = list(pool.map(lambda number: client.run("cat", str(number).encode())[0], range(64)))
        assert said == [str(number).encode() for number in range(64)]
        sessions = [process for process in sshd.processes() if "sshd" in process.name()]
        assert len(sessions) <= 2  # one connection, which sshd may serve with two processes
        client.close()

    @pytest.mark.parametrize("most", [1, 2])
    def test_requests_wait_for_a_host_that_allows_few_sessions(
        self, deadlines: Deadlines, make_sshd: Callable[..., Sshd], most: int
    ) -> None:
        sshd = make_sshd(f"MaxSessions {most}")
        if not sshd.program.path:
            pytest.skip("only sshd counts sessions")
        client = SshClient(the_address(sshd), deadlines)
        with ThreadPoolExecutor(6) as pool:
            said = list(pool.map(lambda number: client.run("sleep 0.05; cat", str(number).encode())[0], range(12)))
        assert said == [str(number).encode() for number in range(12)]
        client.close()

    def test_a_host_that_allows_no_session_is_unreachable(
        self, deadlines: Deadlines, make_sshd: Callable[..., Sshd]
    ) -> None:
        sshd = make_sshd("MaxSessions 0")
        if not sshd.program.path:
            pytest.skip("only sshd counts sessions")
        with pytest.raises(Unreachable, match="opens no session"):
            SshClient(the_address(sshd), deadlines).run("true")

    def test_an_answer_that_is_too_long_is_refused_in_bounded_memory(self, deadlines: Deadlines, sshd: Sshd) -> None:
        client = SshClient(the_address(sshd), deadlines)
        before = psutil.Process(os.getpid()).memory_info().rss
        with pytest.raises(Unreachable, match="longer than 1000000 bytes"):
            client.run("head -c 300000000 /dev/zero", most=1_000_000)
        assert psutil.Process(os.getpid()).memory_info().rss - before < 40 << 20
        assert client.run("echo on") == (b"on\n", b"")
        client.close()

    def test_the_stderr_of_a_command_is_returned(self, deadlines: Deadlines, sshd: Sshd) -> None:
        client = SshClient(the_address(sshd), deadlines)
        assert client.run("echo why >&2; exit 3")[1] == b"why\n"
        client.close()

    def test_the_connection_of_a_killed_session_is_known_to_be_closed(self, deadlines: Deadlines, sshd: Sshd) -> None:
        client = SshClient(the_address(sshd), deadlines)
        client.run("true")
        sshd.cut()
        with pytest.raises(Unreachable):
            client.run("true")
        assert not client.is_open
