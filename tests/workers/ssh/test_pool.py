"""The connection pool: one connection per host for all threads, reopened when broken, backed off after failures."""

import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import psutil
import pytest

from app.domain.host import Fitness
from tests.builders import AT
from tests.patience import patient, wait_until
from tests.remote_runs import a_start, wait_for_end
from tests.silent_proxy import wire
from tests.sshd import Sshd
from tests.workers.ssh.quick import QUICK
from workers.errors import NotContacted, Unreachable, Untrusted
from workers.hosts.client import HostClient, HostLimits
from workers.ssh.pool import SshLimits

MakeHosts = Callable[..., HostClient]


def wait_for_supervisors(sshd: Sshd, most: int) -> set[int]:
    """The pids of the supervisors that serve requests, once there are at most so many."""

    def find() -> list[set[int]]:
        found = {one.pid for one in sshd.processes() if serves(one)}
        return [found] if len(found) <= most else []

    return wait_until(find, f"at most {most} supervisors stay connected", 20)[0]


def serves(process: psutil.Process) -> bool:
    try:
        return bool(process.cmdline()[-1:] == ["serve"])
    except psutil.Error:  # it ended a moment ago
        return False


class TestConnections:
    def test_all_threads_share_one(self, hosts: HostClient, sshd: Sshd) -> None:
        with wire(sshd.addresses[0], sshd.port) as counted:
            host = sshd.machine(ssh_port=counted.port)
            with ThreadPoolExecutor(8) as pool:
                list(pool.map(lambda _: hosts.request(host, "probe", {}), range(16)))
            assert counted.connections == 1

    def test_one_that_broke_is_reopened_and_the_request_is_answered(self, hosts: HostClient, sshd: Sshd) -> None:
        host = sshd.machine()
        hosts.request(host, "probe", {})
        sshd.cut()
        assert hosts.request(host, "probe", {})["git"]

    def test_an_idle_supervisor_serves_the_next_request_and_its_death_does_no_harm(
        self, hosts: HostClient, sshd: Sshd
    ) -> None:
        host = sshd.machine()
        with ThreadPoolExecutor(6) as pool:
            list(pool.map(lambda _: hosts.request(host, "poll", {"runs": []}), range(12)))
        serving = wait_for_supervisors(sshd, 2)
        hosts.request(host, "start", a_start())
        assert wait_for_supervisors(sshd, 2) & serving
        for pid in wait_for_supervisors(sshd, 2):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        assert wait_for_end(hosts, host)["result"]["end"] == "finished"
        hosts.pool.get(host).close_idle_sessions(0)
        wait_for_supervisors(sshd, 0)

    def test_another_address_gets_another_one(self, hosts: HostClient, sshd: Sshd) -> None:
        first, second = sshd.machine(), sshd.machine(1, host_id="host-1")
        kept = hosts.pool.get(first)
        assert hosts.pool.get(first) is kept
        assert hosts.pool.get(second) is not kept


class TestFailures:
    def test_a_host_that_failed_is_not_contacted_for_a_moment(self, make_hosts: MakeHosts, sshd: Sshd) -> None:
        reported: list[str] = []
        hosts = make_hosts(on_failure=lambda machine, why: reported.append(f"{machine.host_id}: {why}"))
        host = sshd.machine(ssh_port=1)
        with pytest.raises(Unreachable, match="refused"):
            hosts.request(host, "probe", {})
        began = time.monotonic()
        with pytest.raises(NotContacted, match="asked again"):
            hosts.request(host, "probe", {})
        assert time.monotonic() - began < patient(0.5)
        assert len(reported) == 1 and "refused" in reported[0]

    def test_a_host_with_another_key_is_reported_once_and_contacted_again_after_a_resume(
        self, make_hosts: MakeHosts, sshd: Sshd
    ) -> None:
        reported: list[Unreachable] = []
        hosts, declared = make_hosts(on_failure=lambda _, why: reported.append(why)), sshd.declared()
        sshd.change_host_key()
        with pytest.raises(Untrusted, match="host-1 did not answer `probe`: host key changed"):
            hosts.request(sshd.machine(**declared), "probe", {})
        for _ in range(3):
            with pytest.raises(NotContacted):
                hosts.request(sshd.machine(**declared), "probe", {})
        assert [type(why) for why in reported] == [Untrusted]
        with pytest.raises(Untrusted):
            hosts.request(sshd.machine(**declared, since=AT), "probe", {})

    def test_a_quarantined_host_is_not_contacted(self, hosts: HostClient, sshd: Sshd) -> None:
        with wire(sshd.addresses[0], sshd.port) as counted:
            host = sshd.machine(ssh_port=counted.port, fitness=Fitness.QUARANTINED, why="host key changed")
            with pytest.raises(Unreachable, match="quarantine, and is not asked: host key changed"):
                hosts.request(host, "probe", {})
            assert counted.connections == 0

    def test_a_host_that_drops_all_packets_holds_up_no_other(self, make_hosts: MakeHosts, sshd: Sshd) -> None:
        hosts = make_hosts(limits=HostLimits(ssh=SshLimits(QUICK)))
        with wire(sshd.addresses[0], sshd.port, silent=True) as silent:
            dead, alive = sshd.machine(ssh_port=silent.port), sshd.machine(1)
            hosts.request(alive, "probe", {})
            with ThreadPoolExecutor(4) as pool:
                calls = [pool.submit(hosts.request, dead, "poll", {"runs": []}) for _ in range(3)]
                answered = 0
                while not all(call.done() for call in calls):
                    hosts.request(alive, "poll", {"runs": []})
                    answered += 1
                assert answered > 3
                assert all(isinstance(call.exception(), Unreachable) for call in calls)
