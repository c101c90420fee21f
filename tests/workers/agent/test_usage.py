"""The agent hears each byte of its CLI once, for the sake of what it uses; what it forgot is read again."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.clis import catalog
from app.clis.template import CliTemplate
from workers.agent.leases import Hold
from workers.agent.local_runs import Machine
from workers.agent.usage import Ear

WHOLE = (Path(__file__).parents[2] / "fixtures" / "clis" / "claude-write-skip-permissions.jsonl").read_bytes()
SOLD_AT: dict[str, Any] = {"model": "m", "price": {"input": 10.0, "cached": 1.0, "output": 50.0, "as_of": "today"}}


class Kept(Machine):
    """This machine, with an output that is there already."""

    def __init__(self) -> None:
        super().__init__(Path("/nowhere"), "i1", CliTemplate(), None)

    def output(self, hold: Hold) -> bytes:
        return WHOLE


@pytest.fixture
def ear() -> Ear:
    hold = Hold("x", 1, {"task_id": "x"}, "Do it.")
    return Ear(hold, replace(catalog.template_of("claude"), **SOLD_AT), Kept())


def piece(begin: int, end: int) -> dict[str, Any]:
    return {"offset": begin, "data": WHOLE[begin:end]}


def test_pieces_that_overlap_count_once(ear: Ear) -> None:
    for begin, end in ((0, 3000), (0, 5000), (4000, 5500), (0, 10)):
        used = ear.used(piece(begin, end))
    assert (used["input_tokens"], used["cached_tokens"], used["output_tokens"]) == (2400, 1600, 2)
    assert used["cost_usd"] == pytest.approx(0.0097)


def test_dollars_are_those_of_the_model_that_it_names_where_its_price_is_known() -> None:
    own = {"claude-opus-5-5": {"input": 5.0, "cached": 0.5, "output": 25.0}}
    ear = Ear(Hold("x", 1, {"task_id": "x"}, "Do it."), replace(catalog.template_of("claude"), prices=own), Kept())
    assert ear.used(piece(0, 5500))["cost_usd"] == pytest.approx(0.00485)


def test_what_the_cli_notes_elsewhere_counts_while_it_works() -> None:
    ear = Ear(Hold("x", 1, {"task_id": "x"}, "Do it."), replace(catalog.template_of("codex"), **SOLD_AT), Kept())
    info = {"total_token_usage": {"input_tokens": 1000, "cached_input_tokens": 0, "output_tokens": 200}}
    noted = json.dumps({"type": "event_msg", "payload": {"type": "token_count", "info": info}})
    used = ear.used({"offset": 0, "data": b""}, noted)
    assert (used["input_tokens"], used["cost_usd"]) == (1000, pytest.approx(0.02))


def test_after_a_restart_what_was_heard_before_is_read_again(ear: Ear) -> None:
    assert ear.used(piece(5000, 5500))["input_tokens"] == 2400
    assert ear.used(piece(5500, len(WHOLE)))["input_tokens"] == 2400
