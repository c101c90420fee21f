"""Those who look at hosts write down together what they saw, and what one of them cannot write, another does."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
import sqlalchemy as sa
from sqlalchemy import event

from app.ports import Fleet
from app.store import host_polls
from app.store.host_polls import Answered
from app.store.tables import host_polls as rows
from tests.builders import AT
from tests.patience import patient, wait_until
from tests.store.test_host_polls import with_runs
from workers.runs.threads import Crew

HOSTS = [f"h{number}" for number in range(5)]
Together = Callable[[], list["Future[None]"]]


@pytest.fixture
def crew(fleet: Fleet) -> Crew:
    """One that has taken five hosts to look at."""
    made = Crew(8)
    with fleet.engine.begin() as conn:
        with_runs(conn, len(HOSTS))
        host_polls.take(conn, made.name, AT, len(HOSTS))
    return made


@pytest.fixture
def together(fleet: Fleet, crew: Crew) -> Iterator[Together]:
    """Has all write down their hosts' answers, the others while the first is held up."""
    with ThreadPoolExecutor(8) as threads:

        def note(host_id: str) -> "Future[None]":
            return threads.submit(crew.note, fleet, Answered(host_id, True, None, []), 5.0)

        def note_all() -> list["Future[None]"]:
            with fleet.engine.begin() as conn:
                conn.execute(sa.select(rows).where(rows.c.host_id == HOSTS[0]).with_for_update())
                first = note(HOSTS[0])
                wait_until(lambda: crew._writing.locked() and not crew._answered, "the first writes", 8)
                others = [note(host_id) for host_id in HOSTS[1:]]
                wait_until(lambda: len(crew._answered) == len(others), "the others wait", 8)
            return [first, *others]

        yield note_all


def unwritten(fleet: Fleet) -> list[str]:
    with fleet.engine.begin() as conn:
        return list(conn.execute(sa.select(rows.c.host_id).where(rows.c.answered_at.is_(None))).scalars())


def test_who_comes_while_one_writes_is_written_down_at_once_with_all_the_others(
    fleet: Fleet, together: Together
) -> None:
    commits: list[object] = []

    def count(conn: object) -> None:
        commits.append(conn)

    event.listen(fleet.engine, "commit", count)
    for one in together():
        one.result(patient(10))
    event.remove(fleet.engine, "commit", count)
    assert len(commits) == 3, "that of the test which held up the first, the first, all others"
    assert unwritten(fleet) == []


def test_what_one_could_not_write_the_next_one_does(fleet: Fleet, together: Together) -> None:
    begun: list[object] = []

    def fail_the_third(conn: object) -> None:
        begun.append(conn)
        if len(begun) == 3:  # after the test's and the first one's
            raise OSError("the database is away")

    event.listen(fleet.engine, "begin", fail_the_third)
    ended = [one.exception(patient(10)) for one in together()]
    event.remove(fleet.engine, "begin", fail_the_third)
    (lost,) = [host_id for host_id, why in zip(HOSTS, ended, strict=True) if why]
    assert unwritten(fleet) == [lost], "whose thread has heard of it"
