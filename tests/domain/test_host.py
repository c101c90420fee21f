"""Checks how a probe of a host is judged: fit for work, or unfit with the reason."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.domain.host import Fitness, Probe, judge

ANSWER = {
    "git": "git version 2.39.5", "python": "3.11.2", "boot_id": "b", "disk_free": 5 << 30, "memory_available": 1 << 30,
    "cpus": 4, "load": [2.0, 1.0, 0.5], "clis": {"codex": "codex 1.0"}, "missing": [],
}  # fmt: skip


def judged(**given: Any) -> tuple[Fitness, str | None]:
    return judge(Probe.from_answer(ANSWER | given, 0.0, 0.1), least_disk=1 << 30, most_load=8)


def test_one_that_has_all_is_fit() -> None:
    assert judged() == (Fitness.FIT, None)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"git": None}, "git is missing there: install it"),
        ({"disk_free": 5 << 20}, "only 5 MB of disk are free there, and 1024 are the least"),
        ({"load": [64.0, 0, 0]}, "its load is 16.0 a CPU, and 8 is the most"),
    ],
)
def test_one_that_lacks_something_says_what(given: dict[str, Any], why: str) -> None:
    assert judged(**given) == (Fitness.UNFIT, why)


def test_load_is_for_each_cpu() -> None:
    assert Probe.from_answer(ANSWER, 0.0, 0.1).load_per_cpu == 0.5


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(ANSWER, anything)))
@settings(max_examples=200, deadline=None, database=None)
def test_whatever_a_host_answers_can_be_kept_and_judged(answer: dict[str, Any]) -> None:
    seen = Probe.from_answer(answer, 0.0, 0.1)
    fitness, _ = judge(seen, 1 << 30, 8)
    assert fitness in (Fitness.FIT, Fitness.UNFIT)
