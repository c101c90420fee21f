"""Measures what a CLI uses while it works, from its output: the fleet may have a budget for it."""

import structlog

from app.clis import catalog, outcomes, pricing
from app.clis.parser import Parser, Setting
from app.clis.template import CliTemplate
from app.domain.run import Usage
from workers.agent.held_tasks import HeldTask
from workers.agent.local_runs import LocalRuns
from workers.errors import Unreachable
from workers.protocol import LogPiece

log = structlog.get_logger()


class UsageMeter:
    """The usage of one start of a run."""

    def __init__(self, held: HeldTask, template: CliTemplate, runs: LocalRuns) -> None:
        self._held, self._template, self._runs = held, template, runs
        self._parser, self._parsed = self._new_parser(), 0

    def add(self, piece: LogPiece, session_notes: str | None = None) -> Usage:
        """Parse another piece of the output; returns the usage so far, with dollars if the price is known.

        `session_notes` is what the CLI wrote to its session file.
        """
        try:
            self._feed(piece)
        except Unreachable as why:
            log.warning("the usage is not known now", task=self._held.task_id, why=str(why))
        self._parser.feed_session_line(session_notes)
        seen = self._parser.progress()
        return pricing.add_cost(outcomes.sanitize_usage(seen.usage), self._template, seen.by_model)[0]

    def _feed(self, piece: LogPiece) -> None:
        """Parse each byte once. What this agent parsed before a restart is read again from this machine."""
        if piece.offset > self._parsed:
            self._parser = self._new_parser()
            self._parser.feed(self._runs.output(self._held)[: piece.end])
        else:
            self._parser.feed(piece.data[self._parsed - piece.offset :])
        self._parsed = max(self._parsed, piece.end)

    def _new_parser(self) -> Parser:
        setting = Setting(before=self._held.usage_before, session=self._held.session, reading=self._template.reading)
        return catalog.make_parser(self._template.parser, setting)
