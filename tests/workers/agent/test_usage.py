"""The agent measures what its CLI uses: each byte counts once, and what it forgot is read again."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.clis import catalog
from app.clis.template import CliTemplate
from workers.agent.held_tasks import HeldTask
from workers.agent.local_runs import LocalRuns
from workers.agent.messages import Work
from workers.agent.usage import UsageMeter
from workers.protocol import LogPiece

WHOLE = (Path(__file__).parents[2] / "fixtures" / "clis" / "claude-write-skip-permissions.jsonl").read_bytes()
SOLD_AT: dict[str, Any] = {"model": "m", "price": {"input": 10.0, "cached": 1.0, "output": 50.0, "as_of": "today"}}


class FinishedRun(LocalRuns):
    """A machine with a run whose whole output is there."""

    def __init__(self) -> None:
        super().__init__(Path("/nowhere"), "i1", CliTemplate(), None)

    def output(self, held: HeldTask) -> bytes:
        return WHOLE


def a_meter(template: CliTemplate) -> UsageMeter:
    return UsageMeter(HeldTask.taken(Work("x", 1, "Do it.")), template, FinishedRun())


@pytest.fixture
def meter() -> UsageMeter:
    return a_meter(replace(catalog.template_of("claude"), **SOLD_AT))


def piece(begin: int, end: int) -> LogPiece:
    return LogPiece(begin, WHOLE[begin:end], len(WHOLE))


def test_pieces_that_overlap_count_once(meter: UsageMeter) -> None:
    for begin, end in ((0, 3000), (0, 5000), (4000, 5500), (0, 10)):
        used = meter.add(piece(begin, end))
    assert (used.input_tokens, used.cached_tokens, used.output_tokens) == (2400, 1600, 2)
    assert used.cost_usd == pytest.approx(0.0097)


def test_dollars_are_those_of_the_model_that_it_names_if_its_price_is_known() -> None:
    own = {"claude-opus-5-5": {"input": 5.0, "cached": 0.5, "output": 25.0}}
    meter = a_meter(replace(catalog.template_of("claude"), prices=own))
    assert meter.add(piece(0, 5500)).cost_usd == pytest.approx(0.00485)


def test_what_the_cli_writes_to_its_session_file_counts_while_it_works() -> None:
    meter = a_meter(replace(catalog.template_of("codex"), **SOLD_AT))
    info = {"total_token_usage": {"input_tokens": 1000, "cached_input_tokens": 0, "output_tokens": 200}}
    notes = json.dumps({"type": "event_msg", "payload": {"type": "token_count", "info": info}})
    used = meter.add(LogPiece(0, b"", 0), notes)
    assert used.input_tokens == 1000
    assert used.cost_usd == pytest.approx(0.02)


def test_after_a_restart_what_was_parsed_before_is_read_again(meter: UsageMeter) -> None:
    assert meter.add(piece(5000, 5500)).input_tokens == 2400
    assert meter.add(piece(5500, len(WHOLE))).input_tokens == 2400
