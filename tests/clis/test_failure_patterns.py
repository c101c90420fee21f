"""Finds reset times and kinds of failure in the English messages of CLIs."""

from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.clis import failure_patterns, reset_times

NOW = datetime(2026, 11, 24, 20, 10, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("said", "moment"),
    [
        ("try again at 9:07 PM.", "2026-11-24T21:07:00Z"),
        ("try again at 9:07 pm", "2026-11-24T21:07:00Z"),
        ("try again at 8:10 PM.", "2026-11-24T20:10:00Z"),
        ("try again at 7:07 PM.", "2026-11-25T19:07:00Z"),
        ("try again at 12:30 AM.", "2026-11-25T00:30:00Z"),
        ("try again at 12:30 PM.", "2026-11-25T12:30:00Z"),
        ("try again at Nov 26th, 2026 3:50 AM.", "2026-11-26T03:50:00Z"),
        ("try again at Dec 1st, 2026 12:00 AM.", "2026-12-01T00:00:00Z"),
        ("resets Jan 2, 3am (UTC)", "2027-01-02T03:00:00Z"),
        ("Try again in 1 hour.", "2026-11-24T21:10:30Z"),
        ("try again in 2 days 3 hours 4 minutes.", "2026-11-26T23:14:30Z"),
        ("try again in an hour", "2026-11-24T21:10:30Z"),
        ("try again in 45 seconds", "2026-11-24T20:11:15Z"),
        ("resets 9:16pm (UTC)", "2026-11-24T21:16:00Z"),
        ("resets 4:16pm (America/New_York)", "2026-11-24T21:16:00Z"),
        ("resets at 3pm (Europe/Berlin)", "2026-11-25T14:00:00Z"),
        ("resets Thursday 9am", "2026-11-26T09:00:00Z"),
        ("resets tomorrow at 9am", "2026-11-25T09:00:00Z"),
        ("try again at 21:30", "2026-11-24T21:30:00Z"),
        ("try again at 2026-11-24T22:00:00Z", "2026-11-24T22:00:00Z"),
        ("Claude AI usage limit reached|1795468569", "2026-11-23T21:16:09Z"),
        ("resets 9pm (Nowhere/Land)", "2026-11-24T21:00:00Z"),
        ("You have hit your limit.", None),
        ("try again later", None),
        ("try again at 99:99 PM", None),
        ("try again at Feb 31st, 2027 3:00 AM", None),
    ],
)
def test_a_reset_is_found_in_a_sentence(said: str, moment: str | None) -> None:
    assert reset_times.rfc3339(reset_times.reset_in(said, NOW)) == moment


@given(st.text(max_size=200), st.sampled_from(["try again at ", "resets ", "try again in ", ""]))
@settings(max_examples=200, deadline=None, database=None)
def test_any_sentence_is_read_without_complaint(said: str, begin: str) -> None:
    reset_times.reset_in(begin + said, NOW)
    failure_patterns.failure_of(begin + said)


@pytest.mark.parametrize("value", [None, "1795468569", True, -5, float("nan"), float("inf"), 10**30, {}])
def test_what_is_no_moment_is_none(value: object) -> None:
    assert reset_times.from_epoch(value) is None


def test_long_noise_is_read_in_no_time() -> None:
    for noise in ("a " * 50_000, "try again in " + "1 h " * 20_000, "session " * 20_000, "resets " + "9" * 50_000):
        reset_times.reset_in(noise, NOW)
        failure_patterns.failure_of(noise)
