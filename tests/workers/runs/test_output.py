"""The output of a run is read once, piece by piece, while it works; session, progress and cost are stored."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from app.clis import catalog, pricing
from app.clis.parser import Setting
from app.clis.template import CliTemplate
from app.domain.run import Run, Usage, Verdict
from app.ports import Fleet
from app.services.dispatch import budgets, placement
from app.services.runs import expiry, report
from app.store import repositories, runs
from tests.builders import a_host, a_repository, a_stored_task, apply, declared
from tests.conftest import FakeClock
from workers.runs import output
from workers.worker import Worker

SAMPLES = Path(__file__).parents[2] / "fixtures" / "clis"
CODEX = {
    "preset": "codex",
    "model": "gpt-5",
    "price": {"input": 1.0, "cached": 0.5, "output": 10.0, "as_of": "2025-11-01"},
}
ENDED = {"end": "finished", "exit_code": 0, "signal": None}


@pytest.fixture
def run(fleet: Fleet) -> Run:
    with fleet.engine.begin() as conn:
        apply(conn, hosts=[a_host()], clis={"coder": CODEX})
        task = a_stored_task(conn)
    placement.place_waiting(fleet)
    with fleet.engine.begin() as conn:
        found = runs.get(conn, task.id, 1)
    assert found is not None
    report.started(fleet, found)
    return found


def print_(fleet: Fleet, run: Run, data: bytes, offset: int, stream: str = "stdout") -> int:
    return report.log(fleet, run, stream, offset, data).end


def now(fleet: Fleet, run: Run) -> Run:
    with fleet.engine.begin() as conn:
        found = runs.get(conn, run.task_pk, run.number)
    assert found is not None
    return found


def sample(name: str) -> bytes:
    return (SAMPLES / name).read_bytes()


def test_the_session_is_stored_as_soon_as_it_is_printed(fleet: Fleet, worker: Worker, run: Run) -> None:
    whole = sample("codex-three-writes.jsonl")
    size = print_(fleet, run, whole[:80], 0)
    output.read(worker, run)
    assert now(fleet, run).session == "01a20a0e-4c22-74c2-bbd5-85a1180a530b"
    print_(fleet, run, whole[80:], size)
    output.read(worker, run)
    progress = now(fleet, run).progress or {}
    assert progress["message"] == "three files" and len(progress["files"]) == 3
    assert progress["usage"]["input_tokens"] == 4800 and progress["usage"]["cost_usd"] == pytest.approx(0.00488)


def test_another_process_continues_from_the_stored_log(fleet: Fleet, worker: Worker, run: Run) -> None:
    whole = sample("codex-say.jsonl")
    size = print_(fleet, run, whole[:150], 0)
    output.read(worker, run)
    worker.readers.drop(run.id)
    print_(fleet, run, whole[150:], size)
    outcome = output.outcome(worker, run, ENDED)
    assert outcome.verdict is Verdict.SUCCEEDED and outcome.usage.input_tokens == 1200
    assert outcome.cost_source == "the price of gpt-5, 2025-11-01"


def test_the_cost_is_that_of_the_model_that_the_repository_and_the_host_chose(
    fleet: Fleet, worker: Worker, run: Run
) -> None:
    dear = {"model": "gpt-6", "price": {**CODEX["price"], "input": 100.0}}  # type: ignore[dict-item]
    with fleet.engine.begin() as conn:
        rule = declared()["repositories"][0] | {"clis": {"coder": {"model": "m", "price": {}}}}
        apply(conn, hosts=[a_host(clis={"coder": dear})], repositories=[rule], clis={"coder": CODEX})
    print_(fleet, run, sample("codex-say.jsonl"), 0)
    output.read(worker, run)
    assert (now(fleet, run).progress or {})["usage"]["cost_usd"] == pytest.approx(0.04082)
    outcome = output.outcome(worker, run, ENDED)
    assert outcome.cost_source == "the price of gpt-6, 2025-11-01"
    with fleet.engine.begin() as conn:
        repositories.save_repository(conn, "main", a_repository())
        apply(conn, repositories=[rule], clis={"coder": CODEX})
    worker.readers.drop(run.id)
    assert output.outcome(worker, run, ENDED).usage.cost_usd is None, (
        "nobody knows what m costs, and gpt-5 did not work"
    )


class TestClaudesDollars:
    """It tells them at its end alone."""

    OWN: ClassVar[dict[str, Any]] = {"claude-opus-5-5": {"input": 5.0, "cached": 0.5, "output": 25.0}}

    @pytest.fixture
    def claude(self, fleet: Fleet) -> Callable[..., Run]:
        def make(**declared: Any) -> Run:
            agents = [{"agent_type": "claude", "max_concurrency": 1, "capabilities": ["python"]}]
            with fleet.engine.begin() as conn:
                apply(conn, hosts=[a_host(agents=agents)], **declared)
                repositories.save_repository(conn, "main", a_repository())
                task = a_stored_task(conn)
            placement.place_waiting(fleet)
            with fleet.engine.begin() as conn:
                found = runs.get(conn, task.id, 1)
            assert found is not None
            return found

        return make

    def says(self, fleet: Fleet, worker: Worker, run: Run) -> None:
        """All of a real output but its result."""
        whole = sample("claude-write-skip-permissions.jsonl").splitlines(keepends=True)
        print_(fleet, run, b"".join(whole[:-1]), 0)
        output.read(worker, run)

    def test_are_reckoned_while_it_works_by_the_model_that_it_names(
        self, fleet: Fleet, worker: Worker, claude: Any
    ) -> None:
        run = claude(
            prices=self.OWN, repositories=[declared()["repositories"][0] | {"budget": {"run": {"dollars": 0.004}}}]
        )
        assert budgets.over_budget(fleet, run) is None
        self.says(fleet, worker, run)
        assert (now(fleet, run).progress or {})["usage"]["cost_usd"] == pytest.approx(0.00485)
        assert budgets.over_budget(fleet, run), "before its result is there"
        killed = output.outcome(worker, run, ENDED | {"signal": 15})
        assert killed.usage.cost_usd == pytest.approx(0.00485)
        assert killed.cost_source == "the price of claude-opus-5-5, fleet.toml"

    def test_are_its_own_in_the_end(self, fleet: Fleet, worker: Worker, claude: Any) -> None:
        run = claude(prices=self.OWN)
        print_(fleet, run, sample("claude-write-skip-permissions.jsonl"), 0)
        ended = output.outcome(worker, run, ENDED)
        assert (ended.usage.cost_usd, ended.cost_source) == (0.0052, "the CLI")

    def test_are_unknown_until_then_for_a_model_without_a_price(
        self, fleet: Fleet, worker: Worker, claude: Any
    ) -> None:
        run = claude()
        self.says(fleet, worker, run)
        used = (now(fleet, run).progress or {})["usage"]
        assert (used["input_tokens"], used["cost_usd"]) == (2400, None)


def test_several_models_are_priced_each_by_its_own_name_with_or_without_its_day() -> None:
    used = {"claude-sonnet-4-5-20250929": Usage(1_000_000, 0, 0), "claude-haiku-4-5": Usage(0, 0, 1_000_000)}
    dollars, source = pricing.add_cost(Usage(1_000_000, 0, 1_000_000), CliTemplate(), used)
    assert dollars.cost_usd == pytest.approx(8.0)
    assert source == "the price of claude-sonnet-4-5-20250929, 2025-11-01 and claude-haiku-4-5, 2025-11-01"


def test_the_outcome_uses_stderr_signal_and_the_clock_of_the_host(fleet: Fleet, worker: Worker, run: Run) -> None:
    print_(fleet, run, sample("codex-no-git.stderr"), 0, "stderr")
    assert output.outcome(worker, now(fleet, run), ENDED | {"exit_code": 1}).failure == "no_repository"
    print_(fleet, run, sample("codex-usage-limit.jsonl"), 0)
    ended_at = 1795464451.0  # 2026-11-23T20:07:31Z
    outcome = output.outcome(worker, run, ENDED | {"exit_code": 1, "ended_at": ended_at})
    assert outcome.resets_at == "2026-11-23T21:07:00Z"
    assert output.outcome(worker, run, ENDED | {"exit_code": None, "signal": 15}).verdict is Verdict.LIMITED


def test_a_cli_that_hung_after_its_last_word_succeeded(fleet: Fleet, worker: Worker, run: Run) -> None:
    print_(fleet, run, sample("codex-say.jsonl"), 0)
    killed: dict[str, Any] = ENDED | {"exit_code": None, "signal": 9}
    assert output.outcome(worker, run, killed).verdict is Verdict.KILLED
    assert output.outcome(worker, run, killed | {"hung": True}).verdict is Verdict.SUCCEEDED


def test_only_the_usage_of_the_run_counts_in_a_resumed_session(
    fleet: Fleet, worker: Worker, run: Run, clock: FakeClock
) -> None:
    print_(fleet, run, sample("codex-say.jsonl"), 0)
    report.ended(fleet, run, {"end": "failed", "step": "agent"}, output.outcome(worker, run, ENDED))
    clock.pass_(3600)
    expiry.expire_and_wake(fleet)
    placement.place_waiting(fleet)
    with fleet.engine.begin() as conn:
        again = runs.get(conn, run.task_pk, 2)
    assert again and again.session == "01a20a04-7e35-7640-bfd0-f334920ee58a"
    print_(fleet, again, sample("codex-resume.jsonl"), 0)
    assert output.outcome(worker, again, ENDED).usage.input_tokens == 2400


def codex_noted(tokens: int) -> str:
    """A line of its session's file."""
    info = {"total_token_usage": {"input_tokens": tokens, "cached_input_tokens": 0, "output_tokens": 0}}
    return json.dumps({"type": "event_msg", "payload": {"type": "token_count", "info": info}})


def test_a_budget_is_crossed_by_the_session_file_of_a_cli_that_prints_no_usage(
    fleet: Fleet, worker: Worker, run: Run
) -> None:
    with fleet.engine.begin() as conn:
        repositories.save_repository(conn, "main", a_repository())
        rule = declared()["repositories"][0] | {"budget": {"run": {"tokens": 900_000}}}
        apply(conn, hosts=[a_host()], repositories=[rule], clis={"coder": CODEX})
    print_(fleet, run, sample("codex-sigterm-after-write.jsonl"), 0)
    output.follow(worker, run, is_new=True)
    assert budgets.over_budget(fleet, run) is None
    output.follow(worker, run, is_new=False, notes=codex_noted(950_000))
    assert (now(fleet, run).progress or {})["usage"]["input_tokens"] == 950_000
    assert budgets.over_budget(fleet, run)
    output.follow(worker, run, is_new=False, notes=codex_noted(900))
    assert budgets.over_budget(fleet, run), "a note that is older than the recorded usage takes nothing away"
    assert output.outcome(worker, run, ENDED | {"signal": 15}).usage.input_tokens == 950_000


def test_an_error_while_reading_does_not_stop_the_poll(fleet: Fleet, worker: Worker, run: Run) -> None:
    print_(fleet, run, b'{"type":"item.completed","item":{"type":"agent_message","text":"\\ud83d \\u0000 x"}}\n', 0)
    output.follow(worker, run, is_new=True)
    assert now(fleet, run).message == "?  x"
    output.follow(worker, replace(run, id=-1), is_new=True)


def test_a_fresh_session_counts_from_zero() -> None:
    before = {"before": Usage(1000, 0, 0), "session": "another"}
    parser = catalog.make_parser("codex-jsonl", Setting(**before))  # type: ignore[arg-type]
    parser.feed(sample("codex-say.jsonl"))
    assert parser.finish(0).usage.input_tokens == 1200
