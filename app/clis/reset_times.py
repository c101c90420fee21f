"""Parses the moment at which a limit resets out of an English message."""

import re
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from zoneinfo import ZoneInfo

_FAR = timedelta(days=400)
_SLACK = timedelta(minutes=2)  # a message at 9:07:30 may name 9:07
_UNITS = {"d": "days", "h": "hours", "m": "minutes", "s": "seconds", "w": "weeks"}
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_ZONES = {"utc": 0, "gmt": 0, "z": 0, "est": -5, "edt": -4, "cst": -6, "cdt": -5, "mst": -7, "mdt": -6, "pst": -8,
          "pdt": -7, "cet": 1, "cest": 2, "bst": 1}  # fmt: skip

_ANCHOR = re.compile(r"\b(?:try again|resets?|available again|retry|renews?)\b(?: after)?:?\s*(.{1,120})", re.I | re.S)
_EPOCH = re.compile(r"\|\s*(\d{10})(?:\d{3})?\b")
_ISO = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:\.\d{1,6})?)?(?:Z|[+-]\d\d:?\d\d)?")
_IN = re.compile(r"(?:in|after)\s+((?:(?:about |less than )?(?:an?|\d{1,6})\s*[a-z]+[\s,]*(?:and\s+)?)+)", re.I)
_SPAN = re.compile(r"(an?|\d{1,6})\s*([a-z]+)", re.I)
_DATE = re.compile(r"\b([a-z]{3})[a-z]*\.?\s+(\d{1,2})(?:st|nd|rd|th)?\b(?!:)(?:,?\s+(\d{4})\b)?", re.I)
_CLOCK = re.compile(r"\b(\d{1,2})(?::(\d\d))?(?::\d\d)?\s*([ap])\.?m\b|\b(\d{1,2}):(\d\d)(?::\d\d)?\b", re.I)
_WEEKDAY = re.compile(rf"\b({'|'.join(_DAYS)})[a-z]*\b", re.I)
_ZONE = re.compile(r"\(([A-Za-z_]+(?:/[A-Za-z_+-]+){0,2})\)|\b(UTC|GMT|[ECMP][SD]T|CEST|CET|BST)\b")


def reset_in(said: str, now: datetime, zone: tzinfo = UTC) -> datetime | None:
    """The reset time that the message `said`, printed at `now`, names; None if it names none. Times default to `zone`.

    `try again at 9:07 PM.`, `Nov 26th, 2026 3:50 AM`, `in 1 hour 5 minutes`, `resets 9:16pm (UTC)`, `...|1795468569`.
    """
    try:
        found = _parse(said[:4000], now, zone)
    except (ValueError, OverflowError):
        return None
    return found if found and abs(found - now) < _FAR else None


def from_epoch(value: object) -> datetime | None:
    """The moment of a Unix time in seconds or milliseconds; None if `value` is neither."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 1e9 <= value < 4e12:
        return None
    return datetime.fromtimestamp(value / 1000 if value > 1e11 else value, UTC)


def rfc3339(moment: datetime | None) -> str | None:
    return moment.astimezone(UTC).replace(microsecond=0).isoformat().replace("+00:00", "Z") if moment else None


def _parse(said: str, now: datetime, zone: tzinfo) -> datetime | None:
    epoch = _EPOCH.search(said)
    if epoch:
        return from_epoch(int(epoch[1]))
    anchor = _ANCHOR.search(said)
    if not anchor:
        return None
    rest = anchor[1].split("\n")[0]
    return _iso(rest, zone) or _span(rest, now) or _date_or_clock(rest, now, _zone(rest) or zone)


def _iso(said: str, zone: tzinfo) -> datetime | None:
    found = _ISO.search(said)
    moment = datetime.fromisoformat(found[0]) if found else None
    return moment.replace(tzinfo=zone) if moment and moment.tzinfo is None else moment


def _span(said: str, now: datetime) -> datetime | None:
    found = _IN.match(said.lstrip())
    if not found:
        return None
    spans = [(n, _UNITS.get(unit[0].lower())) for n, unit in _SPAN.findall(found[1])]
    total = sum((timedelta(**{unit: int(n) if n.isdigit() else 1}) for n, unit in spans if unit), timedelta())
    return now + total if total else None


def _date_or_clock(said: str, now: datetime, zone: tzinfo) -> datetime | None:
    here, date, clock = now.astimezone(zone), _date_in(said), _CLOCK.search(said)
    if not date and not clock:
        return None
    hour, minute = _hour(clock) if clock else (0, 0)
    at = here.replace(hour=hour, minute=minute, second=0, microsecond=0)
    if date:
        return _on(at, date, now)
    day = _WEEKDAY.search(said)
    if day:
        at += timedelta(days=(_DAYS.index(day[1].lower()) - at.weekday()) % 7)
        return at if at > now - _SLACK else at + timedelta(days=7)
    if "tomorrow" in said.lower():
        return at + timedelta(days=1)
    return at if at > now - _SLACK else at + timedelta(days=1)


def _date_in(said: str) -> tuple[int, int, int | None] | None:
    for month, day, year in _DATE.findall(said):
        if month.lower() in _MONTHS:
            return _MONTHS.index(month.lower()) + 1, int(day), int(year) if year else None
    return None


def _on(at: datetime, date: tuple[int, int, int | None], now: datetime) -> datetime:
    """A date without a year is the next such day."""
    month, day, year = date
    moment = at.replace(year=year or at.year, month=month, day=day)
    return moment if year or moment > now - timedelta(days=1) else moment.replace(year=at.year + 1)


def _hour(clock: re.Match[str]) -> tuple[int, int]:
    if clock[4]:
        return int(clock[4]), int(clock[5])
    return int(clock[1]) % 12 + (12 if clock[3].lower() == "p" else 0), int(clock[2] or 0)


def _zone(said: str) -> tzinfo | None:
    found = _ZONE.search(said)
    name = (found[1] or found[2]) if found else ""
    if name.lower() in _ZONES:
        return timezone(timedelta(hours=_ZONES[name.lower()]))
    try:
        return ZoneInfo(name) if name else None
    except (OSError, ValueError, LookupError):
        return None
