"""A line to a host, on a real sshd: pinned, bounded in time and size, and used by many at once."""

import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import psutil
import pytest

from tests.patience import patient, wait_until
from tests.silence import nobody_accepts, wire
from tests.sshd import Sshd
from tests.workers.conftest import QUICK, as_row
from workers.errors import Distrusted, Unreachable
from workers.ssh.client import Line, NotAsked
from workers.ssh.connection import Address, Limits, host_key
from workers.ssh.host_keys import fingerprint
from workers.ssh.pool import address_of

STAY = "while kill -0 $PPID 2>/dev/null; do sleep 0.1; done"  # silent, for as long as the session lives


def the_address(sshd: Sshd, **given: Any) -> Address:
    return replace(address_of(as_row(sshd.declared())), **given)


def within(secs: float, began: float) -> bool:
    """A deadline was kept, give or take what a busy machine adds."""
    return time.monotonic() - began < secs + patient(8)


class TestTrust:
    def test_a_host_with_the_pinned_key_is_let_in(self, sshd: Sshd) -> None:
        line = Line(the_address(sshd))
        assert line.run("cat", b"hello") == (b"hello", b"")
        line.close()

    def test_one_of_several_pinned_keys_is_enough(self, sshd: Sshd) -> None:
        keys = (sshd.make_key("another"), sshd.host_key + " with a comment")
        Line(the_address(sshd, keys=keys)).close()

    def test_another_key_is_refused_and_both_fingerprints_are_named(self, sshd: Sshd) -> None:
        pinned = sshd.host_key
        sshd.change_host_key()
        with pytest.raises(Distrusted, match="host key changed") as refused:
            Line(the_address(sshd, keys=(pinned,)))
        assert fingerprint(pinned) in str(refused.value)
        assert fingerprint(sshd.host_key) in str(refused.value)

    def test_a_host_without_a_pinned_key_is_not_even_called(self, sshd: Sshd) -> None:
        with pytest.raises(Unreachable, match="no host key is pinned"):
            Line(the_address(sshd, keys=()))

    def test_a_key_of_ours_that_is_refused_is_a_matter_of_trust(self, sshd: Sshd) -> None:
        sshd.make_key("stranger")
        with pytest.raises(Distrusted, match="refuses our key"):
            Line(the_address(sshd, key_path=str(sshd.folder / "stranger")))

    def test_the_key_that_a_host_shows_can_be_asked_for(self, sshd: Sshd) -> None:
        assert host_key(the_address(sshd, keys=(), key_path=None), Limits()) == sshd.host_key

    def test_a_key_file_that_is_not_there_says_which(self, sshd: Sshd) -> None:
        with pytest.raises(Unreachable, match="/nowhere/key cannot be read"):
            Line(the_address(sshd, key_path="/nowhere/key"))

    def test_neither_the_users_ssh_config_nor_an_agent_is_asked(
        self, sshd: Sshd, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        config = sshd.home / ".ssh"
        config.mkdir()
        (config / "config").write_text("Host *\n  ProxyCommand false\n")
        (config / "id_ed25519").write_text((sshd.folder / "client_key").read_text())
        monkeypatch.setenv("HOME", str(sshd.home))
        monkeypatch.setenv("SSH_AUTH_SOCK", str(sshd.home / "no-agent"))
        with pytest.raises(Unreachable, match="no key is configured"):
            Line(the_address(sshd, key_path=None))
        Line(the_address(sshd)).close()

    def test_over_a_jump_host_each_hop_is_pinned(self, sshd: Sshd) -> None:
        jump = the_address(sshd, host=sshd.addresses[1])
        line = Line(the_address(sshd, via=jump))
        assert line.run("cat", b"through") == (b"through", b"")
        line.close()
        with pytest.raises(Distrusted, match="host key changed"):
            Line(the_address(sshd, via=replace(jump, keys=(sshd.make_key("another"),))))


class TestDeadlines:
    """Packets are dropped, not refused: each step ends by itself."""

    def test_at_connect(self, sshd: Sshd) -> None:
        with nobody_accepts(sshd.addresses[0]) as port:
            began = time.monotonic()
            with pytest.raises(Unreachable, match="took longer"):
                Line(the_address(sshd, port=port), QUICK)
            assert within(QUICK.connect, began)

    def test_before_the_first_word(self, sshd: Sshd) -> None:
        with wire(sshd.addresses[0], sshd.port, silent=True) as silent:
            began = time.monotonic()
            with pytest.raises(Unreachable, match="connecting"):
                Line(the_address(sshd, port=silent.port), QUICK)
            assert within(QUICK.greet, began)

    def test_at_authentication_which_says_nothing_about_our_key(self, sshd: Sshd) -> None:
        with wire(sshd.addresses[0], sshd.port, until_keys=True) as silent:
            began = time.monotonic()
            with pytest.raises(Unreachable) as late:
                Line(the_address(sshd, port=silent.port), QUICK)
            assert not isinstance(late.value, Distrusted)
            assert within(QUICK.greet, began)

    def test_at_the_opening_of_a_session(self, sshd: Sshd) -> None:
        with wire(sshd.addresses[0], sshd.port) as silent:
            line = Line(the_address(sshd, port=silent.port), QUICK)
            silent.silent = True
            began = time.monotonic()
            with pytest.raises(NotAsked, match="took longer"):
                line.run("true")
            assert within(QUICK.channel, began)
            wait_until(lambda: not line.is_open, "the thread that reads the connection has closed it", 10)

    def test_in_the_midst_of_an_answer(self, sshd: Sshd) -> None:
        with wire(sshd.addresses[0], sshd.port) as silent:
            line = Line(the_address(sshd, port=silent.port), QUICK)
            began, greeting = time.monotonic(), silent.answered
            with ThreadPoolExecutor(1) as pool:
                asked = pool.submit(line.run, "while :; do echo more; sleep 0.01; done")
                wait_until(lambda: silent.answered > greeting + 500, "the host answers")
                silent.silent = True
                with pytest.raises(Unreachable, match="took longer"):
                    asked.result()
            assert within(QUICK.answer, began)
            line.close()

    def test_in_the_midst_of_a_request_larger_than_every_buffer(self, sshd: Sshd) -> None:
        with wire(sshd.addresses[0], sshd.port) as silent:
            line = Line(the_address(sshd, port=silent.port), QUICK)
            line.run("true")
            began = time.monotonic()
            with pytest.raises(Unreachable):
                line.run(STAY, b"x" * (64 << 20))
            assert within(QUICK.answer, began)
            line.close()

    def test_an_answer_that_is_late_ends_no_other_session(self, sshd: Sshd) -> None:
        line = Line(the_address(sshd), replace(QUICK, answer=patient(20)))
        with ThreadPoolExecutor(1) as pool:
            other = pool.submit(line.run, "sleep 1.2; echo here")
            with pytest.raises(Unreachable, match=r"took longer than 0\.5 s"):
                line.run(STAY, secs=0.5)
            assert other.result() == (b"here\n", b"")
        line.close()

    def test_no_thread_of_ours_is_left_waiting(self, sshd: Sshd) -> None:
        before = {thread.name for thread in threading.enumerate()}
        with wire(sshd.addresses[0], sshd.port) as silent:
            line = Line(the_address(sshd, port=silent.port), QUICK)
            silent.silent = True
            with pytest.raises(Unreachable):
                line.run("true")
            line.close()
            wait_until(lambda: not line.is_open and threads_of(line) <= before, "its thread has ended", 10)


def threads_of(line: Line) -> set[str]:
    """The names of the threads that read connections."""
    return {thread.name for thread in threading.enumerate() if isinstance(thread, type(line._transport))}


class TestSessions:
    def test_many_at_once_on_one_connection(self, sshd: Sshd) -> None:
        line = Line(the_address(sshd))
        with ThreadPoolExecutor(16) as pool:
            said = list(pool.map(lambda number: line.run("cat", str(number).encode())[0], range(64)))
        assert said == [str(number).encode() for number in range(64)]
        sessions = [process for process in sshd.processes() if "sshd" in process.name()]
        assert len(sessions) <= 2  # one connection, which sshd may serve with two processes
        line.close()

    @pytest.mark.parametrize("most", [1, 2])
    def test_a_host_that_opens_few_is_given_time(self, make_sshd: Callable[..., Sshd], most: int) -> None:
        sshd = make_sshd(f"MaxSessions {most}")
        if not sshd.program.path:
            pytest.skip("only sshd counts sessions")
        line = Line(the_address(sshd))
        with ThreadPoolExecutor(6) as pool:
            said = list(pool.map(lambda number: line.run("sleep 0.05; cat", str(number).encode())[0], range(12)))
        assert said == [str(number).encode() for number in range(12)]
        line.close()

    def test_a_host_that_opens_none_is_unreachable(self, make_sshd: Callable[..., Sshd]) -> None:
        sshd = make_sshd("MaxSessions 0")
        if not sshd.program.path:
            pytest.skip("only sshd counts sessions")
        with pytest.raises(Unreachable, match="opens no session"):
            Line(the_address(sshd)).run("true")

    def test_an_answer_that_is_too_long_is_refused_in_bounded_memory(self, sshd: Sshd) -> None:
        line = Line(the_address(sshd))
        before = psutil.Process(os.getpid()).memory_info().rss
        with pytest.raises(Unreachable, match="longer than 1000000 bytes"):
            line.run("head -c 300000000 /dev/zero", most=1_000_000)
        assert psutil.Process(os.getpid()).memory_info().rss - before < 40 << 20
        assert line.run("echo on") == (b"on\n", b"")
        line.close()

    def test_what_goes_wrong_there_is_heard(self, sshd: Sshd) -> None:
        line = Line(the_address(sshd))
        assert line.run("echo why >&2; exit 3")[1] == b"why\n"
        line.close()

    def test_the_line_of_a_killed_session_is_known_to_be_dead(self, sshd: Sshd) -> None:
        line = Line(the_address(sshd))
        line.run("true")
        sshd.cut()
        with pytest.raises(Unreachable):
            line.run("true")
        assert not line.is_open
