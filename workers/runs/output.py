"""Listens to runs while they go: each byte of output is fed once to its CLI's parser, and what it tells is kept."""

import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from threading import Lock
from typing import Any

import structlog

from app.clis import catalog, command_line, outcomes, pricing
from app.clis.parser import Parser, Progress, Setting
from app.clis.template import CliTemplate
from app.domain.run import Outcome, Usage, Verdict
from app.ports import Fleet
from app.services.dispatch import budgets
from app.services.dispatch import credentials as limits
from app.store import fleet_config, hosts, logs, runs
from app.store.logs import Piece
from app.store.tables import Row
from app.store.usage import session_usage, warn
from workers.hosts import client
from workers.runs import start_request

MOST_EARS = 512  # runs whose parsers one process keeps; others catch up from the log
STDERR_READ = 65_536
BUDGET_GRACE_SECS = 3
log = structlog.get_logger()


@dataclass
class _Ear:
    """A run's parser and how far it has heard. `kept` is what was written down last."""

    parser: Parser
    template: CliTemplate
    heard: int = 0
    noted: str | None = None
    kept: dict[str, Any] = field(default_factory=dict)
    lock: Any = field(default_factory=Lock)
    next_check: float = 0.0


_ears: OrderedDict[int, _Ear] = OrderedDict()
_shelf = Lock()


def attend(
    fleet: Fleet, run: Row, news: bool, said: Piece | None = None, budgeted: bool = False, noted: str | None = None
) -> None:
    """Listen to a run that said something, or `noted` it elsewhere, and end one that may have a budget when that is
    used up. What goes wrong here holds up no look at a host."""
    try:
        if news or (noted and noted != _ear(fleet, run).noted):
            listen(fleet, run, said, noted)
        if budgeted and time.monotonic() > _ear(fleet, run).next_check:  # one that was ended needs a moment to go
            _keep_to_budget(fleet, run)
    except Exception:
        log.exception("a run could not be listened to", run=run["name"])


def listen(fleet: Fleet, run: Row, said: Piece | None = None, noted: str | None = None) -> Progress:
    """Catch up with the run's log, of which `said` was stored just now; its session and progress are written down as
    soon as they are heard."""
    ear = _ear(fleet, run)
    with ear.lock:
        _catch_up(fleet, run, ear, said)
        if noted and noted != ear.noted:
            ear.parser.feed_session_line(noted)
            ear.noted = noted
        progress = _priced(ear)
        _keep(fleet, run, ear, progress)
        return progress


def outcome(fleet: Fleet, run: Row, result: Mapping[str, Any]) -> Outcome:
    """What the run's whole output amounts to. A CLI that hung after its last word ended well as far as that goes, and
    so did one whose work was found on the forge."""
    try:
        with fleet.engine.begin() as conn:
            run = runs.get(conn, run["task_pk"], run["number"]) or run
        ear = _ear(fleet, run)
        with ear.lock:
            _catch_up(fleet, run, ear)
            return _finished(fleet, run, ear, result)
    except (TypeError, LookupError, ValueError, AttributeError):
        log.exception("output that its parser cannot read", run=run["name"])
        return Outcome(Verdict.UNKNOWN, failure="unreadable")
    finally:
        forget(run["id"])


def forget(run_id: int) -> None:
    with _shelf:
        _ears.pop(run_id, None)


def _keep_to_budget(fleet: Fleet, run: Row) -> None:
    """TERM, and KILL what is left a moment later: so soon that a look a second keeps to 5 s in all."""
    spent = budgets.over_budget(fleet, run)
    if spent is None:
        return
    with fleet.engine.begin() as conn:
        host = hosts.host(conn, run["host_id"])
    budgets.shall_end(fleet, run, spent)
    if host is not None:
        request = start_request.about(fleet, host, run["name"]) | {"grace_secs": BUDGET_GRACE_SECS}
        answer = client.ask(host, "cancel", request)
        _ear(fleet, run).next_check = time.monotonic() + 2 * BUDGET_GRACE_SECS
        log.info("a budget is used up", run=run["name"], why=spent.why, answer=answer.get("state"))


def _ear(fleet: Fleet, run: Row) -> _Ear:
    with _shelf:
        if run["id"] in _ears:
            _ears.move_to_end(run["id"])
            return _ears[run["id"]]
    ear = _new_ear(fleet, run)
    with _shelf:
        ear = _ears.setdefault(run["id"], ear)
        while len(_ears) > MOST_EARS:
            _ears.popitem(last=False)
    return ear


def _new_ear(fleet: Fleet, run: Row) -> _Ear:
    cli = run["agent_type"] or ""
    with fleet.engine.begin() as conn:
        prices = fleet_config.prices(conn)
        (declared, changes), before = budgets.cli_declaration(conn, run), session_usage(conn, run)
    known = (declared or {}).get("argv") or (declared or {}).get("preset") or catalog.preset(cli)
    template = catalog.template_of(cli, declared, changes) if known else CliTemplate()
    used = Usage(**before) if before else Usage()
    setting = Setting(before=used, session=run["session"], reading=template.reading)
    return _Ear(catalog.make_parser(template.parser, setting), replace(template, prices=prices))


def _catch_up(fleet: Fleet, run: Row, ear: _Ear, said: Piece | None = None) -> None:
    """A gap in the log, where a host left out the middle of a long output, ends the line that it fell into. What was
    `said` is not read again where it goes on from what was heard."""
    if said is not None and said.offset == ear.heard:
        ear.parser.feed(said.data)
        ear.heard = said.end
        return
    with fleet.engine.begin() as conn:
        for offset, data in logs.pieces(conn, run["id"], "stdout", ear.heard):
            if offset > ear.heard and ear.heard:
                ear.parser.feed(b"\n")
            ear.parser.feed(data)
            ear.heard = offset + len(data)


def _priced(ear: _Ear) -> Progress:
    seen = ear.parser.progress()
    used = outcomes.sanitize_usage(seen.usage)
    return replace(seen, usage=pricing.add_cost(used, ear.template, seen.by_model)[0])


def _keep(fleet: Fleet, run: Row, ear: _Ear, progress: Progress) -> None:
    told = fleet.mask.json(outcomes.sanitize_json(progress.as_json()))
    if told == ear.kept:
        return
    session = command_line.valid_session(told["session_id"])
    is_new, is_warned = session != ear.kept.get("session_id"), told["warning"] != ear.kept.get("warning")
    with fleet.engine.begin() as conn:
        goes_on = not (is_new or is_warned)  # lost, it is told again with the run's next word, or with its end
        runs.noted(conn, run["id"], told["message"], told, fleet.clock(), unhurried=goes_on)
        if session and is_new:
            runs.keep_session(conn, run["id"], session)
        if told["warning"] and is_warned:
            warn(conn, limits.credential_of(conn, run), told["warning"], fleet.clock())
    ear.kept = told


def _finished(fleet: Fleet, run: Row, ear: _Ear, result: Mapping[str, Any]) -> Outcome:
    ended = result.get("ended_at")
    moment = datetime.fromtimestamp(ended, UTC) if isinstance(ended, int | float) else fleet.clock()
    ear.parser.setting = replace(ear.parser.setting, now=moment)
    with fleet.engine.begin() as conn:
        begin = max(0, run["stderr_size"] - STDERR_READ)
        stderr = logs.read(conn, run["id"], "stderr", begin, STDERR_READ * 2)
    exit_code = 0 if result.get("hung") or result.get("adopted") else _exit_code(result)
    ear.parser.feed_session_line(result.get("noted"))
    heard = outcomes.sanitize(ear.parser.finish(exit_code, stderr))
    usage, source = pricing.add_cost(heard.usage, ear.template, ear.parser.progress().by_model)
    return replace(heard, usage=usage, cost_source=heard.cost_source or source)


def _exit_code(result: Mapping[str, Any]) -> int | None:
    code, number = result.get("exit_code"), result.get("signal")
    return 128 + number if isinstance(number, int) and number else code if isinstance(code, int) else None
