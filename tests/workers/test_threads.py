"""Threads that call hosts are bounded; failing hosts get few; answers of several threads are written together."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
import sqlalchemy as sa
from sqlalchemy import event

from app.ports import Fleet
from app.services.runs import report
from app.store import host_polls
from app.store.host_polls import Answered
from app.store.tables import host_polls as rows
from tests.builders import AT
from tests.patience import patient, wait_until
from tests.store.test_host_polls import with_runs
from workers.threads import HOSTS_EACH, Batch, Busy, HostThreads, PollThreads

HOSTS = [f"h{number}" for number in range(5)]
WriteAll = Callable[[], list["Future[None]"]]


@pytest.fixture
def write_all(fleet: Fleet) -> Iterator[WriteAll]:
    """Writes the answers of five hosts at once, four of them while the first write is held up."""
    batch: Batch[Answered] = Batch()
    with fleet.engine.begin() as conn:
        with_runs(conn, len(HOSTS))
        host_polls.take(conn, "us", AT, len(HOSTS))
    with ThreadPoolExecutor(8) as threads:

        def write(answers: list[Answered]) -> None:
            report.record_poll(fleet, "us", answers, 5.0)

        def submit(host_id: str) -> "Future[None]":
            return threads.submit(batch.write, Answered(host_id, True, None, []), write, False)

        def submit_all() -> list["Future[None]"]:
            with fleet.engine.begin() as conn:
                conn.execute(sa.select(rows).where(rows.c.host_id == HOSTS[0]).with_for_update())
                first = submit(HOSTS[0])
                wait_until(lambda: batch.is_writing and not len(batch), "the first writes", 8)
                others = [submit(host_id) for host_id in HOSTS[1:]]
                wait_until(lambda: len(batch) == len(others), "the others wait", 8)
            return [first, *others]

        yield submit_all


def unwritten(fleet: Fleet) -> list[str]:
    with fleet.engine.begin() as conn:
        return list(conn.execute(sa.select(rows.c.host_id).where(rows.c.answered_at.is_(None))).scalars())


def test_answers_that_come_during_a_write_are_written_together_afterwards(fleet: Fleet, write_all: WriteAll) -> None:
    commits: list[object] = []

    def count(conn: object) -> None:
        commits.append(conn)

    event.listen(fleet.engine, "commit", count)
    for one in write_all():
        one.result(patient(10))
    event.remove(fleet.engine, "commit", count)
    assert len(commits) == 3, "that of the test which held up the first, the first, all others"
    assert unwritten(fleet) == []


def test_an_answer_that_one_thread_could_not_write_is_written_by_the_next(fleet: Fleet, write_all: WriteAll) -> None:
    begun: list[object] = []

    def fail_the_third(conn: object) -> None:
        begun.append(conn)
        if len(begun) == 3:  # after the test's and the first one's
            raise OSError("the database is away")

    event.listen(fleet.engine, "begin", fail_the_third)
    ended = [one.exception(patient(10)) for one in write_all()]
    event.remove(fleet.engine, "begin", fail_the_third)
    (lost,) = [host_id for host_id, why in zip(HOSTS, ended, strict=True) if why]
    assert unwritten(fleet) == [lost], "whose thread has raised the error"


def test_one_host_gets_at_most_its_share_of_the_threads() -> None:
    threads = HostThreads(4, 2)
    with threads.at_host("a"), threads.at_host("a"), threads.at_host("b"), pytest.raises(Busy), threads.at_host("a"):
        pass
    with threads.at_host("a"):
        pass


def test_polls_are_bounded_and_failing_hosts_get_a_quarter_of_the_threads() -> None:
    threads, gate = PollThreads(8), threading.Event()
    for number, failing in enumerate((True, True, False)):
        threads.submit(f"h{number}", failing, lambda: int(gate.wait(patient(30))))
    assert (threads.free(failing=False), threads.free(failing=True)) == (8 * HOSTS_EACH - 3, 0)
    gate.set()
    for poll in threads.polls.values():
        poll.result()
    assert (threads.free(failing=False), threads.free(failing=True)) == (8 * HOSTS_EACH, 2)
    threads.close()
