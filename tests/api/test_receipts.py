"""Receipts: every claim is looked up on the forge before it counts, and what cannot hold changes nothing."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import sqlalchemy as sa
from sqlalchemy import Engine

from app.domain.task import State
from app.services.runs import expiry
from app.store import runs, views
from tests.agent_client import Agent, register
from tests.api.receipt_scene import pull_url, taken
from tests.api.test_tasks import assert_error
from tests.conftest import FakeClock
from tests.patience import wait_until
from tests.workshop import WIDGETS, Workshop


class TestCompleted:
    def test_with_its_own_pull_request_the_task_waits_for_review_and_the_merge_completes_it(
        self, shop: Workshop, agent: Agent
    ) -> None:
        number, task = taken(shop, agent)
        sha = shop.push(number)
        pull = shop.open_pull(number)
        made = [{"type": "pr", "url": pull_url(shop, pull)}, {"type": "commit", "sha": sha}]
        answer = agent.say(task, "complete", status="completed", artifacts=made, summary="Done.", duration_seconds=3)
        assert (answer.status_code, answer.get_json()["status"]) == (200, "review_pending")
        assert answer.get_json()["pr_number"] == pull
        shop.converge()
        assert shop.pulls() == [pull]
        shop.merge(pull)
        shop.converge()
        assert shop.task(number).state is State.COMPLETED
        assert any("receipt" in said for said in shop.comments(number))

    def test_its_own_pull_request_keeps_off_what_the_repository_forbids(self, shop: Workshop, agent: Agent) -> None:
        shop.forge.commit(WIDGETS, "alice", "main", {".fleet.toml": 'forbidden_paths = ["total.*"]'}, "Say how")
        number, task = taken(shop, agent)
        shop.push(number)
        made = [{"type": "pr", "url": pull_url(shop, shop.open_pull(number))}]
        answer = agent.say(task, "complete", status="completed", artifacts=made)
        assert_error(answer, 400, "invalid", "total.")
        assert shop.task(number).state is State.RUNNING
        assert agent.say(task, "complete", status="partial", artifacts=made, error="Not done.").status_code == 200

    def test_with_a_branch_alone_the_pull_request_is_opened_for_it(self, shop: Workshop, agent: Agent) -> None:
        number, task = taken(shop, agent)
        sha = shop.push(number)
        made = [{"type": "branch", "ref": task["branch_name"]}, {"type": "commit", "sha": sha}]
        assert agent.say(task, "complete", status="completed", artifacts=made).get_json()["status"] == "running"
        answers = agent.beat((task["task_id"], task["lease"]))
        assert [(one["status"], one["stop"]) for one in answers] == [("running", False)]  # a review may still come
        shop.converge()
        assert shop.task(number).state is State.REVIEW_PENDING
        assert len(shop.pulls()) == 1

    def test_what_is_on_the_forge_counts_also_when_it_is_not_claimed(self, shop: Workshop, agent: Agent) -> None:
        number, task = taken(shop, agent)
        shop.push(number)
        agent.say(task, "complete", status="completed")
        shop.converge()
        assert shop.task(number).state is State.REVIEW_PENDING

    def test_nothing_on_the_forge_is_nothing_delivered(self, shop: Workshop, agent: Agent) -> None:
        number, task = taken(shop, agent)
        answer = agent.say(task, "complete", status="completed", summary="All done, believe me.")
        assert (answer.status_code, answer.get_json()["status"]) == (200, "failed")
        assert shop.task(number).reason == "no_delivery"

    def test_it_confirms_a_task_that_was_never_confirmed(self, shop: Workshop, agent: Agent) -> None:
        number = shop.open_issue()
        shop.converge()
        task = agent.dequeue().get_json()
        shop.push(number)
        assert agent.say(task, "complete", status="completed").status_code == 200
        shop.converge()
        assert shop.task(number).state is State.REVIEW_PENDING

    def test_twice_the_same_is_answered_the_same_way(self, shop: Workshop, agent: Agent) -> None:
        number, task = taken(shop, agent)
        shop.push(number)
        told = {"status": "completed", "summary": "Done."}
        first, again = (agent.say(task, "complete", **told) for _ in range(2))
        assert (first.status_code, again.status_code) == (200, 200)
        assert agent.post("/receipts", task_id=task["task_id"], lease=1, **told).status_code == 200
        shop.converge()
        assert agent.say(task, "complete", **told).get_json()["status"] == "review_pending"
        assert shop.facts(number).count("finished") == 1

    def test_another_receipt_for_the_same_run_comes_too_late(self, shop: Workshop, agent: Agent) -> None:
        number, task = taken(shop, agent)
        shop.push(number)
        agent.say(task, "complete", status="completed")
        assert_error(agent.say(task, "complete", status="failed", error="No, wait."), 409, "stale")
        shop.converge()
        assert shop.task(number).state is State.REVIEW_PENDING

    def test_a_round_of_review_ends_with_a_new_commit_only(self, shop: Workshop, agent: Agent) -> None:
        number, task = taken(shop, agent)
        shop.push(number)
        agent.say(task, "complete", status="completed")
        shop.converge()
        pull = shop.task(number).pr_number or 0
        shop.review(pull)
        shop.converge()
        answers = agent.beat((task["task_id"], 1))
        assert [one["lease"] for one in answers if "feedback" in one] == [2]
        round_ = {"task_id": task["task_id"], "lease": 2}
        assert agent.say(round_, "status", status="running").status_code == 200
        shop.push(number, "2")
        done = agent.say(
            round_, "complete", status="completed", artifacts=[{"type": "pr", "url": pull_url(shop, pull)}]
        )
        assert done.get_json()["status"] == "review_pending"
        assert shop.pulls() == [pull]


class TestClaims:
    @pytest.mark.parametrize(
        "claim",
        [
            {"type": "pr", "url": "{forge}/acme/widgets/pulls/99"},
            {"type": "pr", "url": "https://elsewhere.example/acme/widgets/pulls/2"},
            {"type": "pr", "url": "{forge}/acme/widgets/pulls/2"},
            {"type": "pr", "url": "{forge}/acme/widgets/issues/1"},
            {"type": "pr", "url": "x"},
            {"type": "commit", "sha": "0" * 40},
            {"type": "commit", "sha": "main"},
            {"type": "commit", "sha": "../../../user"},
            {"type": "branch", "ref": "no/such/branch"},
            {"type": "file", "path": "no/such/file"},
            {"type": "file", "path": "../../../user"},
        ],
    )
    @pytest.mark.parametrize("status", ["completed", "failed", "partial"])
    def test_one_that_does_not_hold_is_named_and_nothing_changes(
        self, shop: Workshop, agent: Agent, claim: dict[str, str], status: str
    ) -> None:
        number, task = taken(shop, agent)
        shop.forge.commit(WIDGETS, "alice", "other", {"x": "1"}, "Another")
        shop.people["alice"].post(
            f"/repos/{WIDGETS}/pulls", json={"head": "other", "base": "main", "title": "Not this task's"}
        ).raise_for_status()
        shop.push(number)
        made = [{name: value.replace("{forge}", shop.forge.url) for name, value in claim.items()}]
        assert_error(
            agent.say(task, "complete", status=status, artifacts=made), 400, "invalid", "artifacts", claim["type"]
        )
        assert shop.task(number).state is State.RUNNING
        assert shop.run(number).ended_at is None

    def test_those_that_hold_are_kept_with_the_run(self, shop: Workshop, agent: Agent) -> None:
        number, task = taken(shop, agent)
        sha = shop.push(number)
        made = [{"type": "commit", "sha": sha}, {"type": "file", "path": "total.py"},
                {"type": "url", "url": "https://ci.example/run/7"}]  # fmt: skip
        assert agent.say(task, "complete", status="completed", artifacts=made).status_code == 200
        kept = shop.shown(number)["runs"][0]["artifacts"]
        assert [(one["type"], one["checked"]) for one in kept] == [("commit", True), ("file", True), ("url", False)]

    def test_while_the_forge_is_away_the_receipt_is_neither_believed_nor_lost(
        self, shop: Workshop, agent: Agent
    ) -> None:
        number, task = taken(shop, agent)
        shop.push(number)
        shop.forge.faults.next("*", ".*", 502)
        answer = agent.say(task, "complete", status="completed")
        assert_error(answer, 503, "unavailable")
        assert answer.headers["Retry-After"]
        assert agent.say(task, "complete", status="completed").status_code == 200
        assert shop.run(number).end == "finished"


class TestTheOtherEnds:
    def test_partial_work_has_failed_and_is_kept(self, shop: Workshop, agent: Agent) -> None:
        number, task = taken(shop, agent)
        sha = shop.push(number)
        made = [{"type": "commit", "sha": sha}]
        answer = agent.say(task, "complete", status="partial", artifacts=made, summary="Half of it.")
        assert (answer.get_json()["status"], answer.get_json()["reason"]) == ("failed", "partial")
        run = shop.shown(number)["runs"][0]
        assert (run["summary"], run["commits"]) == ("Half of it.", [sha])

    def test_failed_work_is_tried_again_while_there_are_retries(
        self, shop: Workshop, agent: Agent, clock: FakeClock
    ) -> None:
        number, task = taken(shop, agent)
        for attempt in (1, 2, 3):
            answer = agent.say(task, "complete", status="failed", error="The tests are red.")
            assert answer.get_json()["retry_count"] == min(attempt, 2)
            clock.pass_(25)
            expiry.expire_and_wake(shop.fleet)
            task = agent.take() if attempt < 3 else None
        assert shop.task(number).state is State.FAILED
        shop.converge()
        assert any("The tests are red." in said for said in shop.comments(number))

    def test_a_usage_limit_parks_the_task_until_it_is_over(self, shop: Workshop, agent: Agent) -> None:
        number, task = taken(shop, agent)
        agent.say(task, "complete", status="failed", failure="limit", resets_at="2026-11-24T05:00:00Z")
        after = shop.task(number)
        assert (after.state, after.due_at and after.due_at.hour) == (State.PARKED, 5)

    def test_what_it_used_stands_in_the_receipt(self, shop: Workshop, agent: Agent) -> None:
        number, task = taken(shop, agent)
        shop.push(number)
        used = {"input_tokens": 10, "cached_tokens": 2, "output_tokens": 3, "cost_usd": 0.5}
        checks = [{"command": "make test", "exit_code": 0, "seconds": 1.5}]
        agent.say(task, "complete", status="completed", usage=used, checks=checks)
        shop.converge()
        shop.merge(shop.task(number).pr_number or 0)
        shop.converge()
        proof = next(said for said in shop.comments(number) if "receipt" in said)
        assert '"cost_usd": 0.5' in proof
        assert '"make test"' in proof


class TestAtTheSameTime:
    def test_a_receipt_that_meets_the_end_of_its_lease_is_not_answered_as_if_it_counted(
        self, shop: Workshop, agent: Agent, clock: FakeClock
    ) -> None:
        number, task = taken(shop, agent)
        engine = shop.fleet.engine
        with ThreadPoolExecutor(1) as pool, engine.connect() as clockwork:
            assert runs.expire(clockwork, shop.run(number).id, clock() + timedelta(hours=1))
            answer = pool.submit(agent.say, task, "complete", status="failed", error="No.")
            until_somebody_waits_for_a_lock(engine)
            clockwork.commit()
            assert_error(answer.result(), 409, "stale")

    def test_the_same_receipt_twice_at_once_is_answered_twice_alike(self, shop: Workshop, agent: Agent) -> None:
        number, task = taken(shop, agent)
        shop.push(number)
        with ThreadPoolExecutor(4) as pool:
            answers = list(
                pool.map(lambda _: agent.say(task, "complete", status="completed", summary="Done."), range(4))
            )
        assert [answer.status_code for answer in answers] == [200] * 4
        assert shop.facts(number).count("finished") == 1


def until_somebody_waits_for_a_lock(engine: Engine) -> None:
    waits = sa.text("SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock')")

    def is_waited_for() -> bool:
        with engine.connect() as conn:
            return bool(conn.execute(waits).scalar())

    wait_until(is_waited_for, "a transaction waits for a lock")


def test_the_receipt_tells_the_version_of_the_cli(shop: Workshop, agent: Agent) -> None:
    """By the agent's receipt, else by what it registered with."""
    for told, expected in (({"cli_version": "codex 9"}, "codex 9"), ({}, "codex-cli 0.36.0")):
        shop.client.environ_base["HTTP_AUTHORIZATION"] = "Bearer operator-token-of-the-test"
        registered = register(shop.client, metadata={"clis": {"codex": "codex-cli 0.36.0"}}).get_json()
        agent.token = registered["registry_token"]
        number, task = taken(shop, agent)
        shop.push(number)
        agent.say(task, "complete", status="completed", **told)
        shop.converge()
        shop.merge(shop.task(number).pr_number or 0)
        shop.converge()
        with shop.fleet.engine.begin() as conn:
            proof = views.receipt_of(conn, task["task_id"]) or {}
        assert [run["cli_version"] for run in proof["runs"]] == [expected]
