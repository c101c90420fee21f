"""`fleet logs`: what a run printed, and prints: byte for byte into a file or pipe, harmless on a terminal."""

import base64
import codecs
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import click

from app import wiring
from app.domain.errors import Kind, Refused
from app.domain.task import WORKING
from app.domain.visible_text import printable
from app.ports import Fleet
from app.store import host_polls, runs, tasks
from app.store import logs as store
from app.store.tables import Row

PAUSE_SECS = 0.3
HURRY_SECS = 2.0  # how often a host whose log is followed is asked to be looked at soon


@click.command()
@click.argument("task_id")
@click.option("-f", "--follow", is_flag=True, help="Go on until the task does not work any more, run after run.")
@click.option("--run", "number", type=click.IntRange(1), help="This run; without it the newest.")
@click.option("--stderr", "stderr", is_flag=True, help="What it printed as errors.")
@click.option(
    "--json", "json_", is_flag=True, help="A line for each piece: run, stream, offset, left_out, data (base64)."
)
def logs(task_id: str, follow: bool, number: int | None, stderr: bool, json_: bool) -> None:
    """What the CLI of a task printed."""
    show = _as_json if json_ else _plain()
    reader = Reader(wiring.fleet(connections=1), task_id, "stderr" if stderr else "stdout", show)
    reader.read(number)
    while follow and reader.goes_on(number):
        time.sleep(PAUSE_SECS)
        reader.read(number)


@dataclass
class Reader:
    """Shows the log of a task's run as far as it is known, and goes on from there when asked again."""

    fleet: Fleet
    task_id: str
    stream: str
    show: Callable[[Row, str, int, store.Piece], None]
    offsets: dict[int, int] = field(default_factory=dict)
    hurried_at: float = 0.0

    def read(self, number: int | None) -> None:
        """Show what is new: piece by piece, each in a transaction of its own, so that a long log takes no memory. When
        a newer run has begun, the one before it is shown to its end first."""
        for run in self._runs(number):
            while piece := self._next(run):
                self.show(run, self.stream, self.offsets.get(run["id"], 0), piece)
                self.offsets[run["id"]] = piece.end

    def goes_on(self, number: int | None) -> bool:
        """Whether there is more to come. The host whose log we follow is looked at soon."""
        with self.fleet.engine.begin() as conn:
            task = tasks.find(conn, self.task_id)
            run = runs.get(conn, task.id, number or task.run)
            if run and run["host_id"] and time.monotonic() > self.hurried_at + HURRY_SECS:
                host_polls.hurry(conn, run["host_id"], self.fleet.clock())
                self.hurried_at = time.monotonic()
        if run is None:
            return task.live
        return run["ended_at"] is None or bool(self._next(run)) or (number is None and task.state in WORKING)

    def _runs(self, number: int | None) -> list[Row]:
        with self.fleet.engine.begin() as conn:
            task = tasks.find(conn, self.task_id)
            if number is not None and runs.get(conn, task.id, number) is None:
                raise Refused(Kind.UNKNOWN, f"{self.task_id} has no run {number}; its newest is {task.run}.")
            wanted = [run for run in runs.of_task(conn, task.id) if run["number"] == (number or task.run)]
            begun = [run for run in runs.of_task(conn, task.id) if run["id"] in self.offsets]
        return sorted({run["id"]: run for run in [*begun, *wanted]}.values(), key=lambda run: int(run["number"]))

    def _next(self, run: Row) -> store.Piece | None:
        with self.fleet.engine.begin() as conn:
            piece = store.piece(conn, run["id"], self.stream, self.offsets.get(run["id"], 0))
        return piece if piece.data else None


def _as_json(run: Row, stream: str, since: int, piece: store.Piece) -> None:
    line: dict[str, Any] = {"run": run["number"], "stream": stream, "offset": piece.offset}
    click.echo(json.dumps(line | {"left_out": piece.offset - since, "data": base64.b64encode(piece.data).decode()}))


def _plain() -> Callable[[Row, str, int, store.Piece], None]:
    """Bytes as they are; on a terminal as text in which no character of others does anything."""
    if not sys.stdout.isatty():
        return _as_bytes
    decode = codecs.getincrementaldecoder("utf-8")(errors="replace").decode

    def as_text(_: Row, __: str, since: int, piece: store.Piece) -> None:
        if piece.offset > since:
            click.echo(store.left_out(piece.offset - since).decode(), nl=False)
        click.echo(printable(decode(piece.data)), nl=False)

    return as_text


def _as_bytes(_: Row, __: str, since: int, piece: store.Piece) -> None:
    """Where the middle was left out, a line says so; the offsets of all else are in `--json`."""
    sys.stdout.buffer.write(store.left_out(piece.offset - since) + piece.data)
    sys.stdout.buffer.flush()
