"""Feeds the output of runs to the CLI's parser, and stores progress."""

import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import structlog

from app.clis import catalog, command_line, outcomes, pricing
from app.clis.parser import Progress, Setting
from app.clis.template import CliTemplate
from app.domain.run import Outcome, Run, Usage, Verdict
from app.ports import Fleet
from app.services.dispatch import budgets
from app.services.dispatch import credentials as limits
from app.store import fleet_config, hosts, logs, runs
from app.store.logs import Piece
from app.store.usage import record_warning, session_usage
from workers.readers import OutputReader
from workers.worker import Worker

STDERR_BYTES = 65_536  # of its end, for the parser
BUDGET_GRACE_SECS = 3  # between TERM and KILL
log = structlog.get_logger()


def follow(
    worker: Worker, run: Run, is_new: bool, new: Piece | None = None, budgeted: bool = False, notes: str | None = None
) -> None:
    """Read what is new of a run, and cancel it if its budget is used up. Errors are logged: the poll goes on.

    `new` is the stdout that was stored just now, `notes` what the CLI wrote to its session file.
    """
    try:
        if is_new or (notes and notes != _reader(worker, run).session_notes):
            read(worker, run, new, notes)
        if budgeted and time.monotonic() > _reader(worker, run).next_budget_check:
            _cancel_if_over_budget(worker, run)
    except Exception:
        log.exception("the output of a run could not be read", run=run.name)


def read(worker: Worker, run: Run, new: Piece | None = None, notes: str | None = None) -> Progress:
    """Read the run's log up to its end, and store session and progress."""
    reader = _reader(worker, run)
    with reader.lock:
        _feed_new_output(worker.fleet, run, reader, new)
        if notes and notes != reader.session_notes:
            reader.parser.feed_session_line(notes)
            reader.session_notes = notes
        progress = _progress_with_cost(reader)
        _save(worker.fleet, run, reader, progress)
        return progress


def outcome(worker: Worker, run: Run, result: Mapping[str, Any]) -> Outcome:
    """The outcome of the run's whole output.

    A CLI that hung after its last word counts as exit code 0, and so does a run whose work was found on the forge.
    """
    try:
        with worker.fleet.engine.begin() as conn:
            run = runs.get(conn, run.task_pk, run.number) or run
        reader = _reader(worker, run)
        with reader.lock:
            _feed_new_output(worker.fleet, run, reader)
            return _finish(worker.fleet, run, reader, result)
    except (TypeError, LookupError, ValueError, AttributeError):
        log.exception("the parser cannot read the output of a run", run=run.name)
        return Outcome(Verdict.UNKNOWN, failure="unreadable")
    finally:
        worker.readers.drop(run.id)


def _cancel_if_over_budget(worker: Worker, run: Run) -> None:
    """Cancel a run whose budget is used up: with a poll a second, it has ended within 5 s."""
    fleet = worker.fleet
    spent = budgets.over_budget(fleet, run)
    if spent is None:
        return
    with fleet.engine.begin() as conn:
        machine = hosts.machine(conn, run.host_id or "")
    budgets.record_stop_reason(fleet, run, spent)
    if machine is not None:
        answer = worker.hosts.request(machine, "cancel", {"run": run.name, "grace_secs": BUDGET_GRACE_SECS})
        _reader(worker, run).next_budget_check = time.monotonic() + 2 * BUDGET_GRACE_SECS
        log.info("a budget is used up", run=run.name, why=spent.why, answer=answer.get("state"))


def _reader(worker: Worker, run: Run) -> OutputReader:
    return worker.readers.get(run.id, lambda: _new_reader(worker.fleet, run))


def _new_reader(fleet: Fleet, run: Run) -> OutputReader:
    cli = run.agent_type or ""
    with fleet.engine.begin() as conn:
        prices = fleet_config.prices(conn)
        (declared, changes), before = budgets.cli_declaration(conn, run), session_usage(conn, run)
    known = (declared or {}).get("argv") or (declared or {}).get("preset") or catalog.preset(cli)
    template = catalog.template_of(cli, declared, changes) if known else CliTemplate()
    used = Usage(**before) if before else Usage()
    setting = Setting(before=used, session=run.session, reading=template.reading)
    return OutputReader(catalog.make_parser(template.parser, setting), replace(template, prices=prices))


def _feed_new_output(fleet: Fleet, run: Run, reader: OutputReader, new: Piece | None = None) -> None:
    """Feed the parser what follows `reader.offset`: `new` if it does, else the stored log.

    A gap in the log, where a host dropped the middle of a long output, ends the line that it is in.
    """
    if new is not None and new.offset == reader.offset:
        reader.parser.feed(new.data)
        reader.offset = new.end
        return
    with fleet.engine.begin() as conn:
        for offset, data in logs.pieces(conn, run.id, "stdout", reader.offset):
            if offset > reader.offset and reader.offset:
                reader.parser.feed(b"\n")
            reader.parser.feed(data)
            reader.offset = offset + len(data)


def _progress_with_cost(reader: OutputReader) -> Progress:
    seen = reader.parser.progress()
    used = outcomes.sanitize_usage(seen.usage)
    return replace(seen, usage=pricing.add_cost(used, reader.template, seen.by_model)[0])


def _save(fleet: Fleet, run: Run, reader: OutputReader, progress: Progress) -> None:
    """Store the progress if it changed. Only a new session or warning waits for the disk: the rest comes again."""
    now, before = fleet.mask.json(outcomes.sanitize_json(progress.as_json())), reader.saved
    if now == before:
        return
    session = command_line.valid_session(now["session_id"])
    is_new, is_warned = session != before.get("session_id"), now["warning"] != before.get("warning")
    with fleet.engine.begin() as conn:
        runs.record_progress(conn, run.id, now["message"], now, fleet.clock(), unhurried=not (is_new or is_warned))
        if session and is_new:
            runs.set_session(conn, run.id, session)
        if now["warning"] and is_warned:
            record_warning(conn, limits.credential_of(conn, run), now["warning"], fleet.clock())
    reader.saved = now


def _finish(fleet: Fleet, run: Run, reader: OutputReader, result: Mapping[str, Any]) -> Outcome:
    ended = result.get("ended_at")
    moment = datetime.fromtimestamp(ended, UTC) if isinstance(ended, int | float) else fleet.clock()
    reader.parser.setting = replace(reader.parser.setting, now=moment)
    with fleet.engine.begin() as conn:
        begin = max(0, run.stderr_size - STDERR_BYTES)
        stderr = logs.read(conn, run.id, "stderr", begin, STDERR_BYTES * 2)
    exit_code = 0 if result.get("hung") or result.get("adopted") else _exit_code(result)
    reader.parser.feed_session_line(result.get("noted"))
    read = outcomes.sanitize(reader.parser.finish(exit_code, stderr))
    usage, source = pricing.add_cost(read.usage, reader.template, reader.parser.progress().by_model)
    return replace(read, usage=usage, cost_source=read.cost_source or source)


def _exit_code(result: Mapping[str, Any]) -> int | None:
    code, number = result.get("exit_code"), result.get("signal")
    return 128 + number if isinstance(number, int) and number else code if isinstance(code, int) else None
