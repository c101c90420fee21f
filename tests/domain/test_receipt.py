"""The proof of finished work."""

import json
from typing import Any

import pytest

from app.domain import receipt
from app.domain.task import State
from app.domain.task_details import AcceptedText, TaskDetails
from tests.builders import AT, a_prompt, a_task

TEXT = AcceptedText("Fix the total", "It is off by one.", a_prompt(), issue={"number": 12})
DETAILS = TaskDetails(TEXT, "api", "task", repository={"full_name": "acme/widgets"}, requested_by="alice")


def a_run(number: int = 1, **given: Any) -> dict[str, Any]:
    return {
        "number": number,
        "host_id": "host-1",
        "cli": "codex",
        "started_at": "2026-11-24T02:00:00+00:00",
        "log": "…",
    } | given


def written(*runs: dict[str, Any], merged: Any = None, **given: Any) -> Any:
    task = a_task(state=State.COMPLETED, completed_at=AT, **given)
    return receipt.write(task, DETAILS, [receipt.prove_run(run) for run in runs], merged)


def test_says_what_was_wanted_and_what_was_merged() -> None:
    proof = written(a_run(), merged={"number": 13, "merge_commit": "abc"}, review_count=1)
    assert (proof["task_id"], proof["title"], proof["branch"]) == (
        "acme/widgets#12",
        "Fix the total",
        "task/12-fix-the-total",
    )
    assert (proof["pull_request"], proof["reviews"]) == ({"number": 13, "merge_commit": "abc"}, 1)
    assert (proof["started_at"], proof["completed_at"]) == ("2026-11-24T02:00:00+00:00", AT.isoformat())


def test_lists_the_commits_of_all_runs_in_their_order() -> None:
    assert written(a_run(1, commits=["a", "b"]), a_run(2), a_run(3, commits=["c"]))["commits"] == ["a", "b", "c"]


def test_shows_the_validation_of_the_last_run() -> None:
    assert written(a_run(1, validation=["failed"]), a_run(2, validation=["passed"]))["validation"] == ["passed"]


def test_keeps_of_a_run_only_what_proves_something() -> None:
    (run,) = written(a_run(end="finished"))["runs"]
    assert run["end"] == "finished" and "log" not in run


@pytest.mark.parametrize(
    ("usages", "total"),
    [
        ([None], None),
        ([{}], None),
        ([{"input_tokens": None}], None),
        ([{"input_tokens": 0}], 0),
        ([{"input_tokens": 5}, None, {"input_tokens": 7}], 12),
    ],
)
def test_sums_what_was_used_and_does_not_make_nothing_of_what_is_unknown(usages: list[Any], total: int | None) -> None:
    proof = written(*(a_run(n, usage=usage) for n, usage in enumerate(usages, 1)))
    assert proof["usage"]["input_tokens"] == total
    assert proof["usage"]["cost_usd"] is None


def test_of_a_task_merged_without_a_run_of_ours_is_a_receipt_too() -> None:
    proof = written()
    assert (proof["runs"], proof["commits"], proof["started_at"], proof["pull_request"]) == ([], [], None, None)


def test_is_json() -> None:
    proof = written(a_run(usage={"cost_usd": 0.25}))
    assert json.loads(json.dumps(proof)) == proof
