"""Sets up the state machine of the agent API: agents, hosts, and the server beside its model."""

from typing import Any

import sqlalchemy as sa
from flask.testing import FlaskClient
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
)

from app.ports import Fleet
from app.store.tables import tasks
from tests import servers
from tests.agent_client import Agent
from tests.api.model import Model
from tests.builders import a_host, apply
from tests.conftest import FakeClock

CAN = {"a1": frozenset({"python"}), "a2": frozenset({"python", "gpu"}), "a3": frozenset({"gpu", "rust"})}
SLOTS = {"a1": 1, "a2": 2, "a3": 3}
HOST, HOST_CAN, HOST_SLOTS = "h1", frozenset({"python", "rust"}), 2
NEEDS = [(), ("python",), ("gpu",), ("gpu", "python"), ("rust",)]
WHO, WHICH = st.sampled_from(sorted(CAN)), st.integers(0, 30)
RECEIPTS = {
    "completed": {"status": "completed", "summary": "Done."}, "failed": {"status": "failed", "error": "No."},
    "partial": {"status": "partial", "summary": "Half."}, "limit": {"status": "failed", "failure": "limit"},
}  # fmt: skip


class ServerBesideModel(RuleBasedStateMachine):
    """One server on an empty database. The fixtures stand in the class that a test makes of this."""

    client: FlaskClient
    fleet: Fleet
    clock: FakeClock

    def __init__(self) -> None:
        super().__init__()
        servers.empty(self.fleet.engine)
        with self.fleet.engine.begin() as conn:
            apply(conn, hosts=[a_host(HOST, HOST_SLOTS, tuple(HOST_CAN))])
        self.model = Model()
        self.agents: dict[str, Agent] = {}
        self.given: dict[tuple[str, str], list[tuple[str, int]]] = {}
        self.gone: set[str] = set()
        self.revoked: set[str] = set()

    def as_(self, who: str) -> Agent:
        return self.agents[who]

    def void(self, who: str) -> bool:
        """Its tokens were destroyed, and it has not registered since. To ask for a list moves nothing."""
        return self.as_(who).get("/tasks?limit=1").status_code == 401

    def is_out(self, who: str, answer: Any) -> bool:
        """Whether the agent may not speak: revoked, its token void, or gone."""
        if answer.status_code == 401:
            return True
        return answer.status_code == 404 and "registered" in answer.text

    def task(self, which: int) -> str:
        return sorted(self.model.tasks)[which % len(self.model.tasks)]

    def row(self, id_: str) -> Any:
        with self.fleet.engine.begin() as conn:
            return conn.execute(sa.select(tasks).where(tasks.c.task_id == id_)).mappings().one()
