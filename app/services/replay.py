"""Rebuilds every task from its events and lists the differences to the tasks table."""

from itertools import groupby
from typing import Any

from app.domain.errors import Refused
from app.ports import Fleet
from app.store import events, tasks


def differences(fleet: Fleet) -> tuple[int, list[str]]:
    """How many tasks there are, and a line for each task whose row differs from its events.

    Rows and events are read in one snapshot, so other processes may go on.
    """
    count, lines = 0, []
    with fleet.engine.connect().execution_options(isolation_level="REPEATABLE READ") as conn:
        rows = {task.id: task for task in tasks.all_tasks(conn)}
        for task_pk, told in groupby(events.all_events(conn), key=lambda event: event.task_pk):
            count += 1
            row = rows.pop(task_pk)
            try:
                replayed = tasks.replayed(list(told))
            except Refused as refusal:
                lines.append(f"{row.task_id} cannot be replayed by the rules of this version: {refusal}")
                continue
            lines += _differing(tasks.row_of(row), tasks.row_of(replayed))
    lines += [f"{task.task_id} has no events" for task in rows.values()]
    return count + len(rows), lines


def _differing(row: dict[str, Any], replayed: dict[str, Any]) -> list[str]:
    fields = [
        f"{name} is {row[name]!r}, its events say {replayed[name]!r}" for name in row if row[name] != replayed[name]
    ]
    return [f"{row['task_id']}: {'; '.join(fields)}"] if fields else []
