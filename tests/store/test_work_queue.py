"""Work queues: rows are taken by one, held, let go after a death, and postponed by one ladder of back-offs."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from sqlalchemy import Connection, Engine

from app.domain.lifecycle import OutboxKind
from app.store import comment_commands, deliveries, outbox
from app.store.work_queue import WorkQueue
from tests.builders import AT, a_stored_task

COMMENT = [OutboxKind.COMMENT]


@pytest.mark.parametrize(
    ("queue", "longest"), [(outbox.QUEUE, 300), (comment_commands.QUEUE, 120), (deliveries.QUEUE, 120)]
)
def test_the_back_off_doubles_from_a_second_up_to_the_longest_wait_of_the_queue(queue: WorkQueue, longest: int) -> None:
    waits = [queue.back_off(tries).total_seconds() for tries in (0, 1, 2, 5, 6, 100)]
    assert waits == [1, 2, 4, 32, 64, longest]


def test_a_row_that_was_taken_is_free_again_when_its_holder_died(conn: Connection) -> None:
    a_stored_task(conn)
    [entry] = outbox.take(conn, COMMENT, AT)
    assert (entry.tries, outbox.take(conn, COMMENT, AT)) == (1, [])
    [again] = outbox.take(conn, COMMENT, AT + outbox.QUEUE.hold)
    assert (again.id, again.tries) == (entry.id, 2)


def test_two_who_take_at_once_take_different_rows(engine: Engine) -> None:
    with engine.begin() as conn:
        for number in (1, 2):
            a_stored_task(conn, f"acme/widgets#{number}")
    with engine.begin() as one, engine.begin() as other:
        [mine] = outbox.take(one, COMMENT, AT, most=1)
        [theirs] = outbox.take(other, COMMENT, AT)
    assert mine.task_pk != theirs.task_pk


def test_no_plan_of_postgres_gives_more_rows_than_asked_for(conn: Connection) -> None:
    for number in range(4):
        a_stored_task(conn, f"acme/widgets#{number}")
    for plan in ("hashjoin", "mergejoin", "hashagg", "sort", "material"):
        conn.exec_driver_sql(f"SET LOCAL enable_{plan} = off")
    assert [len(outbox.take(conn, COMMENT, AT, most=3)) for _ in range(3)] == [3, 1, 0]


@pytest.mark.parametrize(("wait", "secs"), [(None, 2), (90.0, 90)], ids=["back-off", "as the other side says"])
def test_a_postponed_row_is_taken_when_its_wait_is_over(conn: Connection, wait: float | None, secs: int) -> None:
    a_stored_task(conn)
    [entry] = outbox.take(conn, COMMENT, AT)
    outbox.postpone(conn, entry, AT, "503: down for maintenance", wait)
    assert outbox.take(conn, COMMENT, AT + timedelta(seconds=secs - 1)) == []
    [again] = outbox.take(conn, COMMENT, AT + timedelta(seconds=secs))
    assert again.error == "503: down for maintenance"


@pytest.mark.parametrize("end", [outbox.done, lambda conn, id_, at: outbox.give_up(conn, id_, at, "403")])
def test_a_row_that_is_done_or_given_up_is_not_taken_again(
    conn: Connection, end: Callable[[Connection, int, object], None]
) -> None:
    a_stored_task(conn)
    [entry] = outbox.take(conn, COMMENT, AT)
    end(conn, entry.id, AT)
    assert outbox.take(conn, COMMENT, AT + timedelta(days=1)) == []
