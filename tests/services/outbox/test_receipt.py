"""The outbox writes a signed receipt of a merged task, once."""

import json
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from app.domain import receipt, receipt_signature
from app.domain.host import Fitness, Probe
from app.domain.lifecycle import Fact, FactKind
from app.store import hosts, tasks, views
from tests.conftest import FakeClock
from tests.workshop import REPO, WIDGETS, Workshop

LOST_ANSWERS = ["cut-after-doing", "502-after-doing"]


def receipt_of(workshop: Workshop, number: int) -> dict[str, Any] | None:
    with workshop.fleet.engine.begin() as conn:
        return views.receipt_of(conn, f"{WIDGETS}#{number}")


def test_the_receipt_is_written_only_after_the_forge_confirms_the_merge(workshop: Workshop, clock: FakeClock) -> None:
    number, pull = workshop.in_review()
    with workshop.fleet.engine.begin() as conn:
        claimed = Fact(FactKind.PULL_MERGED, {"number": pull, "merge_commit": "f" * 40})
        tasks.record(conn, workshop.task(number).id, claimed, clock())
    workshop.converge()
    assert receipt_of(workshop, number) is None
    workshop.merge(pull)
    clock.pass_(10)
    workshop.converge()
    proof = receipt_of(workshop, number)
    merged = workshop.people["alice"].get(f"{REPO}/pulls/{pull}").json()
    assert proof and proof["pull_request"]["merge_commit"] == merged["merge_commit_sha"] != "f" * 40


def test_the_receipt_has_runs_commits_and_cost(workshop: Workshop) -> None:
    number, pull = workshop.in_review()
    workshop.review(pull)
    workshop.converge()
    workshop.start(number)
    workshop.finish(number, "2")
    workshop.converge()
    workshop.merge(pull)
    workshop.converge()
    proof = receipt_of(workshop, number) or {}
    assert (len(proof["runs"]), len(proof["commits"]), proof["reviews"]) == (2, 2, 1)
    assert proof["usage"] == {"input_tokens": 20, "cached_tokens": 0, "output_tokens": 10, "cost_usd": 0.5}
    assert proof["pull_request"]["merged_by"] == "alice"
    assert sum("receipt" in comment for comment in workshop.comments(number)) == 1


@pytest.mark.parametrize("fault", LOST_ANSWERS)
def test_a_lost_answer_does_not_post_a_second_receipt(workshop: Workshop, clock: FakeClock, fault: str) -> None:
    number, pull = workshop.in_review()
    workshop.merge(pull)
    workshop.forge.faults.next("POST", r"/comments$", fault)
    workshop.converge()
    clock.pass_(10)
    workshop.converge()
    assert sum("kind=receipt" in comment for comment in workshop.comments(number)) == 1


def test_the_receipt_is_signed_and_proves_the_history(workshop: Workshop) -> None:
    number, pull = workshop.in_review()
    workshop.merge(pull)
    workshop.converge()
    proof = receipt_of(workshop, number) or {}
    events = workshop.shown(number)["events"]
    assert receipt_signature.verify(receipt.text(proof).encode(), proof["signature"]["key"]) == proof
    assert proof["history"] == {"events": len(events), "head": receipt.chain(proof["task_id"], events)}
    posted = next(text for text in workshop.comments(number) if "kind=receipt" in text)
    inside = posted.split("```json\n")[1].split("\n```")[0]
    assert receipt_signature.verify(inside.encode()) == proof


def test_the_receipt_fits_the_published_schema(workshop: Workshop, clock: FakeClock) -> None:
    """The schema in the docs names every key. The CLI version is the one of the host's last probe before the run."""
    seen = Probe(clis={"coder": "coder 1.2.3"})
    with workshop.fleet.engine.begin() as conn:
        hosts.save_probe(conn, "localhost", clock(), Fitness.FIT, None, seen)
    number, pull = workshop.in_review()
    with workshop.fleet.engine.begin() as conn:
        hosts.save_probe(conn, "localhost", clock(), Fitness.FIT, None, Probe(clis={"coder": "coder 2"}))
    workshop.review(pull)
    workshop.converge()
    workshop.start(number)
    workshop.finish(number, "2")
    workshop.converge()
    workshop.merge(pull)
    workshop.converge()
    schema = json.loads((Path(__file__).parents[3] / "docs" / "receipt.schema.json").read_text())
    proof = receipt_of(workshop, number) or {}
    jsonschema_rs.validator_for(schema).validate(proof)
    assert [run["cli_version"] for run in proof["runs"]] == ["coder 1.2.3", "coder 2"]
    assert set(proof) == set(schema["properties"]) == set(schema["required"])
    assert set(proof["runs"][0]) == set(schema["properties"]["runs"]["items"]["properties"])
    assert set(proof["pull_request"]) == set(schema["properties"]["pull_request"]["properties"])
    for wrong in ({"version": 1}, {"runs": [{"cli_version": 3}]}, {"prompt_sha256": "no hash"}):
        assert not jsonschema_rs.validator_for(schema).is_valid(proof | wrong)
