"""Computes when a closed credential opens again, and which budget is used up."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

MARGIN = timedelta(seconds=60)  # after the reset, since clocks differ
FIRST_PAUSE, LONGEST_PAUSE = timedelta(minutes=1), timedelta(hours=1)
REFUSED_PAUSE = timedelta(minutes=5)  # a refused login seldom works again soon
FARTHEST = timedelta(days=35)  # a later reset was misread
SCOPES = ("run", "task", "repository", "day")
UNITS = ("tokens", "dollars", "minutes")
_WHOSE = {
    "run": "the run's budget", "task": "the task's budget", "repository": "the repository's budget",
    "day": "the repository's budget of today",
}  # fmt: skip


def opens_at(resets_at: str | None, tries: int, at: datetime, first: timedelta = FIRST_PAUSE) -> datetime:
    """The moment to try a closed credential again: a minute after its reset.

    If the reset is unknown or past, the pause is 1, 2, 4 ... times `first`, by the number of earlier `tries`.
    """
    reset = _parse_moment(resets_at)
    if reset is None or not at < reset < at + FARTHEST:
        return at + min(first * int(2 ** min(tries, 10)), LONGEST_PAUSE)
    return reset + MARGIN


@dataclass(frozen=True)
class Amount:
    """An amount that was used or is allowed."""

    tokens: float = 0
    dollars: float = 0
    minutes: float = 0

    def __add__(self, more: "Amount") -> "Amount":
        return Amount(self.tokens + more.tokens, self.dollars + more.dollars, self.minutes + more.minutes)


@dataclass(frozen=True)
class Spent:
    """A budget that is used up, or a limit that applies: the sentence, and when it ends (None: not by itself)."""

    why: str
    until: datetime | None = None
    reason: str = "budget"


def spent_out(
    budget: Mapping[str, Mapping[str, Any]], used: Mapping[str, Amount], extra: Amount, at: datetime
) -> Spent | None:
    """The first budget that is used up, or None. `extra` is the amount that a person added for this task."""
    for scope in SCOPES:
        for unit, cap in (budget.get(scope) or {}).items():
            allowed, spent = cap + getattr(extra, unit), getattr(used.get(scope, Amount()), unit)
            if spent >= allowed:
                why = f"{_WHOSE[scope]} of {_format_amount(allowed, unit)} is used up: {_format_amount(spent, unit)}"
                return Spent(why, tomorrow(at) if scope == "day" else None)
    return None


def today(at: datetime) -> datetime:
    return at.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


def tomorrow(at: datetime) -> datetime:
    return today(at) + timedelta(days=1)


def _format_amount(amount: float, unit: str) -> str:
    return f"{amount:,.0f} {unit}" if unit == "tokens" else f"{amount:,.2f} {unit}"


def _parse_moment(text: str | None) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text) if text else None
    except (ValueError, TypeError):
        return None
    return moment if moment is None or moment.tzinfo else moment.replace(tzinfo=UTC)
