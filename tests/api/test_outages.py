"""After an outage of the whole control plane, agents and hosts keep their tasks."""

from flask.testing import FlaskClient

from app.ports import Fleet
from app.services.agents import leases
from app.services.runs import expiry
from app.store import tasks
from tests.agent_client import an_agent
from tests.api.agent_api_setup import tick, waiting
from tests.builders import apply
from tests.conftest import FakeClock


class TestAnAbsence:
    """After an outage of the control plane leases get a grace period."""

    def test_of_everything_costs_an_agent_nothing(self, client: FlaskClient, fleet: Fleet, clock: FakeClock) -> None:
        task_id, agent = waiting(fleet), an_agent(client)
        agent.take()
        expiry.record_web_alive(fleet)
        expiry.expire_and_wake(fleet)
        clock.pass_(7200)
        expiry.expire_and_wake(fleet)  # whichever comes back first
        expiry.record_web_alive(fleet)
        expiry.expire_and_wake(fleet)
        clock.pass_(100)
        expiry.record_web_alive(fleet)
        expiry.expire_and_wake(fleet)
        assert [one["stop"] for one in agent.beat((task_id, 1))] == [False]

    def test_of_everything_costs_a_host_nothing(self, fleet: Fleet, clock: FakeClock) -> None:
        from app.services.dispatch import placement
        from app.services.runs import report
        from app.store import runs

        with fleet.engine.begin() as conn:
            apply(conn)
        task_id = waiting(fleet)
        placement.place_waiting(fleet)
        with fleet.engine.begin() as conn:
            run = runs.get(conn, tasks.find(conn, task_id).id, 1)
        assert run is not None
        report.started(fleet, run)
        expiry.expire_and_wake(fleet)
        clock.pass_(7200)
        expiry.expire_and_wake(fleet)
        tick(fleet, clock, 100)
        with fleet.engine.begin() as conn:
            assert tasks.find(conn, task_id).state == "running"

    def test_is_not_granted_twice_for_one_gap(self, client: FlaskClient, fleet: Fleet, clock: FakeClock) -> None:
        waiting(fleet)
        an_agent(client).take()
        expiry.record_web_alive(fleet)
        clock.pass_(100)
        for _ in range(3):
            expiry.record_web_alive(fleet)
        with fleet.engine.begin() as conn:
            run = leases.held(conn, 1, 1).run
        assert run.deadline and (run.deadline - clock()).total_seconds() == 180
