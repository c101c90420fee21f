"""`fleet logs`: prints the log of a run, exact bytes into a pipe, without control characters on a terminal."""

import base64
import codecs
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import click

from app.cli.connect import open_fleet
from app.domain.errors import Kind, Refused
from app.domain.run import Run
from app.domain.task import WORKING
from app.domain.visible_text import printable
from app.ports import Fleet
from app.store import host_polls, runs, tasks
from app.store import logs as store

PAUSE_SECS = 0.3
POLL_SOON_SECS = 2.0  # the time between two requests to poll the host of a run that is followed


@click.command()
@click.argument("task_id")
@click.option("-f", "--follow", is_flag=True, help="Go on until the task stops working, run after run.")
@click.option("--run", "number", type=click.IntRange(1), help="This run; by default the newest.")
@click.option("--stderr", "stderr", is_flag=True, help="Standard error instead of standard output.")
@click.option("--json", "json_", is_flag=True, help="One line a piece: run, stream, offset, left_out, data (base64).")
def logs(task_id: str, follow: bool, number: int | None, stderr: bool, json_: bool) -> None:
    """Print what the CLI of a task prints."""
    show = _print_json if json_ else _plain_printer()
    reader = LogReader(open_fleet(), task_id, "stderr" if stderr else "stdout", show)
    reader.read(number)
    while follow and reader.goes_on(number):
        time.sleep(PAUSE_SECS)
        reader.read(number)


@dataclass
class LogReader:
    """Shows what is new in the log of a task's run. `offsets` has, for each run's id, the bytes that were shown."""

    fleet: Fleet
    task_id: str
    stream: str
    show: Callable[[Run, str, int, store.Piece], None]
    offsets: dict[int, int] = field(default_factory=dict)
    asked_for_poll_at: float = 0.0

    def read(self, number: int | None) -> None:
        """Show what is new, each piece in its own transaction, so that a long log needs little memory.

        When a newer run has begun, the run before it is shown to its end first.
        """
        for run in self._runs(number):
            while piece := self._next(run):
                self.show(run, self.stream, self.offsets.get(run.id, 0), piece)
                self.offsets[run.id] = piece.end

    def goes_on(self, number: int | None) -> bool:
        """Whether more can come. Asks for an early poll of the run's host."""
        with self.fleet.engine.begin() as conn:
            task = tasks.find(conn, self.task_id)
            run = runs.get(conn, task.id, number or task.run)
            if run and run.host_id and time.monotonic() > self.asked_for_poll_at + POLL_SOON_SECS:
                host_polls.hurry(conn, run.host_id, self.fleet.clock())
                self.asked_for_poll_at = time.monotonic()
        if run is None:
            return task.live
        return run.ended_at is None or bool(self._next(run)) or (number is None and task.state in WORKING)

    def _runs(self, number: int | None) -> list[Run]:
        with self.fleet.engine.begin() as conn:
            task = tasks.find(conn, self.task_id)
            if number is not None and runs.get(conn, task.id, number) is None:
                raise Refused(Kind.UNKNOWN, f"{self.task_id} has no run {number}; its newest is {task.run}.")
            wanted = [run for run in runs.of_task(conn, task.id) if run.number == (number or task.run)]
            begun = [run for run in runs.of_task(conn, task.id) if run.id in self.offsets]
        return sorted({run.id: run for run in [*begun, *wanted]}.values(), key=lambda run: int(run.number))

    def _next(self, run: Run) -> store.Piece | None:
        with self.fleet.engine.begin() as conn:
            piece = store.piece(conn, run.id, self.stream, self.offsets.get(run.id, 0))
        return piece if piece.data else None


def _print_json(run: Run, stream: str, since: int, piece: store.Piece) -> None:
    line = {"run": run.number, "stream": stream, "offset": piece.offset, "left_out": piece.offset - since}
    click.echo(json.dumps(line | {"data": base64.b64encode(piece.data).decode()}))


def _plain_printer() -> Callable[[Run, str, int, store.Piece], None]:
    """Prints bytes as they are; on a terminal, text without control characters."""
    if not sys.stdout.isatty():
        return _print_bytes
    decode = codecs.getincrementaldecoder("utf-8")(errors="replace").decode

    def print_text(_: Run, __: str, since: int, piece: store.Piece) -> None:
        if piece.offset > since:
            click.echo(store.left_out(piece.offset - since).decode(), nl=False)
        click.echo(printable(decode(piece.data)), nl=False)

    return print_text


def _print_bytes(_: Run, __: str, since: int, piece: store.Piece) -> None:
    """A line marks a middle that was left out; `--json` gives the exact offsets."""
    sys.stdout.buffer.write(store.left_out(piece.offset - since) + piece.data)
    sys.stdout.buffer.flush()
