"""Hears what the CLI prints while it works, for the sake of what it uses: the fleet may have a budget."""

from typing import Any

import structlog

from app.clis import catalog, outcomes, pricing
from app.clis.parser import Parser, Setting
from app.clis.template import CliTemplate
from app.domain.run import Usage
from workers.agent.leases import Hold
from workers.agent.local_runs import Machine, data_of
from workers.errors import Unreachable

Json = dict[str, Any]
log = structlog.get_logger()


class Ear:
    """One start of a run."""

    def __init__(self, hold: Hold, template: CliTemplate, machine: Machine) -> None:
        self._hold, self._template, self._machine = hold, template, machine
        self._parser, self._heard = self._anew(), 0

    def used(self, piece: Json, noted: str | None = None) -> Json:
        """What was used so far, by the piece of output that a look has brought and what the CLI `noted` elsewhere;
        dollars where the price is known."""
        try:
            self._hear(piece["offset"], data_of(piece))
        except Unreachable as why:
            log.warning("what it used is not known now", task=self._hold.task_id, why=str(why))
        self._parser.feed_session_line(noted)
        seen = self._parser.progress()
        return vars(pricing.add_cost(outcomes.sanitize_usage(seen.usage), self._template, seen.by_model)[0])

    def _hear(self, offset: int, data: bytes) -> None:
        """Each byte once. What an earlier life of ours heard is read again from this machine."""
        end = offset + len(data)
        if offset > self._heard:
            self._parser = self._anew()
            self._parser.feed(self._machine.output(self._hold)[:end])
        else:
            self._parser.feed(data[self._heard - offset :])
        self._heard = max(self._heard, end)

    def _anew(self) -> Parser:
        used, reading = Usage(**self._hold.used), self._template.reading
        return catalog.make_parser(
            self._template.parser, Setting(before=used, session=self._hold.session, reading=reading)
        )
