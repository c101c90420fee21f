"""A budget is judged on what a CLI prints while it works: it is ended, by force if need be, and goes on when raised."""

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from app.cli.demo.forge import FakeForge
from app.domain.quota import Amount
from app.domain.task import State
from app.services.dispatch import budgets
from tests.builders import a_host
from tests.conftest import FakeClock
from tests.patience import patient
from tests.workers.workshop_with_real_host import WorkshopWithRealHost
from tests.workshop import Workshop

# Prints answers like Claude Code's, 400 tokens each, ignores TERM, and ends at once when its session is resumed.
TALKER = """
import json, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
say = lambda **event: print(json.dumps({"session_id": "s-1", **event}), flush=True)
say(type="system", subtype="init")
for number in range(0 if "--resume" in sys.argv else 600):
    say(type="assistant", message={"id": f"m{number}", "model": "m", "content": [], "usage": {"input_tokens": 300, "output_tokens": 100}})
    time.sleep(0.1)
open("done.txt", "w").write("done")
say(type="result", subtype="success", is_error=False, result="Done.", usage={"input_tokens": 300, "output_tokens": 100})
"""


EACH, A_SECOND = 400, 10  # what the talker says at most


@pytest.mark.parametrize("most", [{"tokens": 2000}, {"dollars": 0.02}], ids=["in tokens", "in dollars"])
def test_that_is_crossed_ends_even_one_that_hears_no_term(
    forge: FakeForge, make_fleet: Any, make_worker: Any, tmp_path: Path, clock: FakeClock, most: dict[str, float]
) -> None:
    clock.now = datetime.now(UTC)
    argv = [sys.executable, "-c", TALKER]
    cli = {"argv": argv, "resume": [*argv, "--resume", "{session_id}"], "parser": "claude-result",
           "reports_cost": True}  # fmt: skip
    rule: dict[str, Any] = {
        "forge": "main", "name": "acme/*", "cli": None, "max_retries": 0, "task_timeout_secs": 900, "validation": [],
        "budget": {"run": most},
    }  # fmt: skip
    place, prices = a_host(work_dir=str(tmp_path / "work")), {"m": {"input": 10.0, "output": 10.0}}
    shop = Workshop(forge, make_fleet, hosts=[place], clis={"coder": cli}, repositories=[rule], prices=prices)
    at = WorkshopWithRealHost(shop, tmp_path, clock, lambda *_: None, make_worker(shop.fleet))
    number = at.issue("python")
    first = at.until_state(number, State.PARKED)
    task = shop.task(number)
    assert (task.reason, task.retry_count, first["session"], first["failure"]) == ("budget", 0, "s-1", "budget")
    said = first["usage"]["input_tokens"] + first["usage"]["output_tokens"]
    assert (
        2000 <= said <= 2000 + patient(7) * EACH * A_SECOND
    )  # within 5 s and what a busy machine takes, by the talker's clock
    assert (shop.run(number).result or {})["signal"] == 9
    at.until(lambda: "Paused: budget" in " ".join(shop.comments(number)), "the issue says so")
    budgets.raise_budget(shop.fleet, task.task_id, Amount(tokens=50_000, dollars=1))
    second = at.until_state(number, State.REVIEW_PENDING, run=2)
    assert (second["session"], second["verdict"]) == ("s-1", "succeeded")
    assert "done.txt" in at.files(number)
