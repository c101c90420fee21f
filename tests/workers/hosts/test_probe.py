"""Probes make hosts fit, unfit or quarantined, and the tasks that wait say so."""

import time
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa

from app.domain.host import Fitness, Host
from app.domain.task import Mode, State
from app.ports import Fleet
from app.services.dispatch import explain, host_health, placement
from app.store import hosts as host_rows
from app.store import runs, tasks
from app.store.tables import hosts
from tests.builders import a_stored_task, apply
from tests.conftest import FakeClock
from tests.patience import wait_until
from tests.silent_proxy import wire
from tests.sshd import Sshd
from workers.ssh.connection import Timeouts
from workers.worker import Worker

MakeFleet = Callable[..., Fleet]
MakeWorker = Callable[..., Worker]


def declare(fleet: Fleet, *named: dict[str, Any], **given: Any) -> None:
    with fleet.engine.begin() as conn:
        apply(conn, hosts=list(named), clis={"coder": {"argv": ["sh", "-c", "true"]}}, **given)


def host(fleet: Fleet, host_id: str = "host-1") -> Host:
    with fleet.engine.begin() as conn:
        return host_health.find(host_rows.all_hosts(conn), host_id)


def probe(worker: Worker) -> None:
    """Probe the hosts that are due, and wait for every one."""
    worker.prober.probe_due()
    wait_until(lambda: not is_any_probed(worker.fleet), "each host has been probed", 60)


def is_any_probed(fleet: Fleet) -> bool:
    with fleet.engine.begin() as conn:
        return conn.execute(sa.select(hosts.c.host_id).where(hosts.c.probing_until.is_not(None))).first() is not None


def waiting(fleet: Fleet, **given: Any) -> Any:
    with fleet.engine.begin() as conn:
        return a_stored_task(conn, **given)


def why(fleet: Fleet, task: Any) -> dict[str, Any]:
    with fleet.engine.begin() as conn:
        return explain.why(conn, tasks.load(conn, task.id))


class TestFitness:
    def test_a_host_is_probed_before_it_gets_work(self, fleet: Fleet, worker: Worker, sshd: Sshd) -> None:
        declare(fleet, sshd.declared(0), sshd.declared(1))
        task = waiting(fleet)
        assert placement.place_waiting(fleet) == 0
        assert host(fleet).fitness is Fitness.UNKNOWN
        probe(worker)
        seen = host(fleet)
        assert seen.fitness is Fitness.FIT and seen.probe is not None
        assert (seen.probe.git or "").startswith("git version") and abs(seen.probe.clock_offset or 0) < 5
        assert seen.probe.disk_free and seen.probe.boot_id and seen.probe.missing == ()
        assert placement.place_waiting(fleet) == 1
        shown = why(fleet, task)
        assert (
            shown["sentence"]
            == "on host-1: the least loaded of 2: 0/2 slots taken, load " + str(round(seen.load, 1)) + " a CPU"
        )
        assert shown["refusals"].keys() == {"host-2"}

    def test_a_host_is_not_probed_again_before_it_is_due(
        self, fleet: Fleet, worker: Worker, sshd: Sshd, clock: FakeClock
    ) -> None:
        declare(fleet, sshd.declared())
        probe(worker)
        assert host_health.take_due(fleet) == []
        clock.pass_(fleet.config.probe_secs)
        assert [host.host_id for host in host_health.take_due(fleet)] == ["host-1"]
        assert host_health.take_due(fleet) == []  # it is being probed

    @pytest.mark.parametrize(
        ("environ", "reason"),
        [({"FLEET_LEAST_DISK_MB": str(1 << 30)}, "MB of disk are free there"), ({"FLEET_MOST_LOAD": "0.1"}, None)],
    )
    def test_a_host_without_disk_or_with_high_load_gets_no_work_and_says_why(
        self, make_fleet: MakeFleet, make_worker: MakeWorker, sshd: Sshd, environ: dict[str, str], reason: str | None
    ) -> None:
        fleet = make_fleet(**environ)
        worker = make_worker(fleet)
        declare(fleet, sshd.declared())
        probe(worker)
        found = host(fleet)
        if reason is None:
            assert found.probe and (found.fitness is Fitness.UNFIT) == ((found.probe.load_per_cpu or 0) > 0.1)
        else:
            assert found.fitness is Fitness.UNFIT and reason in (found.why or "")

    def test_a_host_without_the_cli_gets_no_work_for_it(self, fleet: Fleet, worker: Worker, sshd: Sshd) -> None:
        agents = [{"agent_type": "nowhere", "max_concurrency": 1, "capabilities": ["python"]}]
        with fleet.engine.begin() as conn:
            apply(conn, hosts=[sshd.declared(agents=agents)], clis={"nowhere": {"argv": ["no-such-cli"]}})
        task = waiting(fleet)
        probe(worker)
        assert host(fleet).fitness is Fitness.FIT
        assert placement.place_waiting(fleet) == 0
        assert why(fleet, task)["sentence"] == "waits: needs python; host host-1 has no nowhere installed"

    def test_a_host_that_is_away_is_unfit_and_becomes_fit_again_by_itself(
        self, fleet: Fleet, worker: Worker, sshd: Sshd, clock: FakeClock
    ) -> None:
        declare(fleet, sshd.declared())
        probe(worker)
        sshd.stop()
        worker.hosts.pool.close()
        clock.pass_(fleet.config.probe_secs)
        probe(worker)
        found = host(fleet)
        assert found.fitness is Fitness.UNFIT and "refused" in (found.why or "")
        sshd.start()
        worker.hosts.pool.close()
        clock.pass_(10)
        probe(worker)
        assert host(fleet).fitness is Fitness.FIT and host(fleet).why is None

    def test_a_silent_host_holds_up_no_other(self, fleet: Fleet, worker: Worker, sshd: Sshd) -> None:
        began = time.monotonic()
        with wire(sshd.addresses[0], sshd.port, silent=True) as silent:
            declare(fleet, sshd.declared(0, ssh_port=silent.port), sshd.declared(1))
            worker.prober.probe_due()
            wait_until(lambda: host(fleet, "host-2").fitness is Fitness.FIT, "host-2 is fit", 60)
            assert host(fleet).fitness is Fitness.UNKNOWN or time.monotonic() - began > Timeouts().login
        wait_until(lambda: host(fleet).fitness is Fitness.UNFIT, "host-1 is unfit", 60)

    def test_a_worker_has_connections_to_the_hosts_that_take_work_and_to_no_other(
        self, fleet: Fleet, worker: Worker, sshd: Sshd, clock: FakeClock
    ) -> None:
        declare(fleet, sshd.declared(0), sshd.declared(1))
        probe(worker)
        worker.hosts.pool.close()
        worker.prober.open_connections()
        wait_until(lambda: all(map(worker.hosts.pool.is_open, ("host-1", "host-2"))), "a connection to each host")
        host_health.quarantine(fleet, "host-1", "host key changed")
        worker.prober.open_connections()
        assert [worker.hosts.pool.is_open(name) for name in ("host-1", "host-2")] == [False, True]

    def test_a_task_that_no_host_can_take_stays_open_to_agents(self, fleet: Fleet, worker: Worker, sshd: Sshd) -> None:
        with wire(sshd.addresses[0], sshd.port, silent=True) as silent:
            declare(fleet, sshd.declared(0, ssh_port=silent.port))
            task = waiting(fleet)
            host_health.quarantine(fleet, "host-1", "host key changed")  # so it is not contacted
            probe(worker)
            assert silent.connections == 0
        assert placement.place_waiting(fleet) == 0
        with fleet.engine.begin() as conn:
            still = tasks.load(conn, task.id)
        assert (still.state, still.mode) == (State.CREATED, Mode.UNDECIDED)


class TestQuarantine:
    def test_another_host_key_quarantines_a_host_until_an_operator_resumes_it(
        self, fleet: Fleet, worker: Worker, sshd: Sshd, clock: FakeClock
    ) -> None:
        declare(fleet, sshd.declared())
        task = waiting(fleet)
        sshd.change_host_key()
        probe(worker)
        assert host(fleet).fitness is Fitness.QUARANTINED
        assert "quarantined since 03:00 on 24 Nov: host key changed" in why(fleet, task)["sentence"]
        clock.pass_(3600)
        assert host_health.take_due(fleet) == []
        host_health.set_fitness(fleet, "host-1", Fitness.UNKNOWN, None)
        probe(worker)
        assert host(fleet).fitness is Fitness.QUARANTINED  # it is still another
        declare(fleet, sshd.declared())  # with the key it has now
        assert host(fleet).fitness is Fitness.UNKNOWN
        probe(worker)
        assert host(fleet).fitness is Fitness.FIT

    def test_a_refused_key_of_ours_quarantines_a_host_too(self, fleet: Fleet, worker: Worker, sshd: Sshd) -> None:
        sshd.make_key("stranger")
        declare(fleet, sshd.declared(ssh_key_path=str(sshd.folder / "stranger")))
        probe(worker)
        assert host(fleet).fitness is Fitness.QUARANTINED
        assert "refuses our key" in (host(fleet).why or "")

    def test_a_key_of_ours_that_cannot_be_read_makes_a_host_unfit(
        self, fleet: Fleet, worker: Worker, sshd: Sshd
    ) -> None:
        declare(fleet, sshd.declared(ssh_key_path="/nowhere/key"))
        probe(worker)
        assert host(fleet).fitness is Fitness.UNFIT


class TestDrain:
    def test_a_host_drains_while_runs_are_open_and_then_is_drained(
        self, fleet: Fleet, worker: Worker, sshd: Sshd, clock: FakeClock
    ) -> None:
        declare(fleet, sshd.declared())
        probe(worker)
        task, second = waiting(fleet), waiting(fleet, task_id="acme/widgets#13")
        assert placement.place_waiting(fleet) == 2
        host_health.set_fitness(fleet, "host-1", Fitness.DRAINING, "drained by an operator")
        clock.pass_(fleet.config.probe_secs)
        probe(worker)
        assert host(fleet).fitness is Fitness.DRAINING
        with fleet.engine.begin() as conn:
            for one in (task, second):
                run = runs.get(conn, one.id, 1)
                assert run is not None and runs.end(conn, run.id, clock(), "finished")
        host_health.take_due(fleet)
        assert host(fleet).fitness is Fitness.DRAINED
        host_health.set_fitness(fleet, "host-1", Fitness.UNKNOWN, None)
        probe(worker)


class TestApply:
    def test_hosts_that_were_added_stay_and_those_that_are_no_longer_declared_drain(
        self, fleet: Fleet, worker: Worker, sshd: Sshd
    ) -> None:
        declare(fleet, sshd.declared(0))
        with fleet.engine.begin() as conn:
            host_rows.add_host(conn, sshd.declared(1))
        declare(fleet)
        assert host(fleet, "host-2").fitness is Fitness.UNKNOWN and host(fleet, "host-2").slots
        assert (host(fleet).fitness, host(fleet).why) == (Fitness.DRAINING, host_rows.UNDECLARED)
        probe(worker)
        assert host(fleet, "host-2").fitness is Fitness.FIT
        assert host(fleet).fitness is Fitness.DRAINED
        declare(fleet, sshd.declared(0))
        assert host(fleet).fitness is Fitness.UNKNOWN
