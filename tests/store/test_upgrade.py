"""A database that an older release wrote is migrated, and its tasks go on."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy import Connection, Engine

from app.cli.demo.forge import FakeForge
from app.domain.lifecycle import OutboxKind
from app.domain.task import State
from app.ports import Fleet
from app.services.dispatch import start_order
from app.services.replay import differences
from app.services.runs import expiry
from app.store import agents, comment_commands, deliveries, outbox, runs, tasks
from app.store.engine import connect
from app.store.migrate import migrate
from tests import servers
from tests.builders import a_host
from tests.conftest import FakeClock
from tests.workshop import Workshop

OLD_ROWS = Path(__file__).parents[1] / "fixtures" / "schema_0013.sql"
ISSUES = 13


@pytest.fixture
def database() -> Iterator[str]:
    name = servers.fresh_name()
    servers.create(name, "template1")
    yield servers.url(name)
    servers.drop(name)


@pytest.fixture
def engine(database: str) -> Iterator[Engine]:
    """A database at schema 0013 with rows of its time, migrated to the newest schema."""
    engine = connect(database, 8)
    migrate(engine, "0013")
    with engine.begin() as conn:
        conn.exec_driver_sql(OLD_ROWS.read_text())
    migrate(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def workshop(forge: FakeForge, make_fleet: Callable[..., Fleet]) -> Workshop:
    """A forge with the issues of the old tasks, and a host with slots for all of them."""
    workshop = Workshop(forge, make_fleet, hooked=False, hosts=[a_host(slots=ISSUES)])
    for _ in range(ISSUES):
        workshop.open_issue()
    return workshop


def test_each_task_is_what_its_old_events_say(fleet: Fleet, conn: Connection) -> None:
    assert differences(fleet) == (ISSUES, [])
    assert {task.state for task in tasks.all_tasks(conn)} == set(State)


def test_an_old_event_that_rerouted_a_task_is_understood(conn: Connection) -> None:
    assert tasks.load(conn, 12).requirement_set_id == tasks.requirement_set(conn, ("python", "gpu"), "coder")


def test_an_unfinished_outbox_entry_is_delivered(workshop: Workshop) -> None:
    assert {entry["kind"] for entry in workshop.shown(1)["outbox"]} == {"comment", "label"}
    workshop.converge()
    assert "agent-fleet" in workshop.comments(1)[0]
    assert not {entry["kind"] for entry in workshop.shown(1)["outbox"]} & {"comment", "label"}


def test_a_delivered_entry_is_not_delivered_again(workshop: Workshop) -> None:
    workshop.converge()
    assert workshop.comments(7) == []


def test_an_entry_that_was_given_up_stays_so(workshop: Workshop) -> None:
    workshop.converge()
    [given_up] = workshop.shown(8)["outbox"]
    assert (given_up["kind"], given_up["given_up"], given_up["error"][:3]) == ("status", True, "403")


def test_a_placed_task_starts_and_comes_to_its_pull_request(workshop: Workshop) -> None:
    with workshop.fleet.engine.begin() as conn:
        [start] = [entry for entry in outbox.of_task(conn, 3) if entry.kind == OutboxKind.START]
    assert start_order.order(workshop.fleet, start) is not None
    workshop.start(3)
    assert workshop.task(3).state is State.RUNNING
    workshop.finish(3)
    workshop.converge()
    assert workshop.task(3).state is State.REVIEW_PENDING


def test_a_running_task_ends(workshop: Workshop) -> None:
    workshop.finish(4)
    workshop.converge()
    assert workshop.task(4).state is State.REVIEW_PENDING


def test_tasks_that_wait_are_placed_when_their_time_comes(workshop: Workshop, clock: FakeClock) -> None:
    clock.pass_(61)
    expiry.expire_and_wake(workshop.fleet)
    workshop.converge()
    assert {workshop.task(number).state for number in (1, 2, 6, 9)} == {State.ASSIGNED}
    assert differences(workshop.fleet) == (ISSUES, [])


def test_a_run_keeps_its_usage_and_why_it_is_to_stop(conn: Connection) -> None:
    run = runs.get(conn, 4, 1)
    assert run is not None
    assert (run.stop_reason, str(run.usage_day)) == ({"reason": "budget"}, "2026-11-24")


def test_deliveries_commands_and_answers_are_still_there(conn: Connection, clock: FakeClock) -> None:
    assert [row.subject for row in deliveries.take(conn, clock())] == ["issue 42 1"]
    assert [row.delivery_id for row in deliveries.without_subject(conn)] == ["d-2"]
    assert [(row.verb, row.allowed) for row in comment_commands.take(conn, clock())] == [("retry", True)]
    assert agents.answer(conn, "agent-1", "key-1") == [{"task_id": "acme/widgets#11"}]


def test_every_name_in_the_schema_begins_with_its_tables_name(conn: Connection) -> None:
    indexes = "SELECT tablename, indexname FROM pg_indexes WHERE schemaname = 'public'"
    constraints = "SELECT conrelid::regclass::text, conname FROM pg_constraint WHERE contype <> 'n' AND connamespace = 'public'::regnamespace"
    named = conn.execute(sa.text(f"{indexes} UNION ALL {constraints}")).all()
    assert [(table, name) for table, name in named if not name.startswith(table) and table != "alembic_version"] == []
