"""Parses JSON output of any shape, as the `[reading]` table of the CLI's template describes it.

A path is names joined by dots: `*` means every element of a list or object, `-1` the last of a list. A condition is a
table of paths and the values they must have; the value `"*"` matches any value.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from app.clis import failure_patterns
from app.clis.json_stream import Event
from app.clis.parser import EventParser, Setting, dollars, number, short, text_of, was_killed
from app.domain.run import Outcome, Usage, Verdict

NAME = "json-path"
COUNTERS = ("input_tokens", "cached_tokens", "output_tokens")
MOST = 10_000  # values that one path may lead to
Path = str
Condition = Mapping[str, Any]


class OutputParser(EventParser):
    """Success is a final event that matches `end` and `good`, no event that matches `bad`, and exit code 0."""

    NAME = NAME

    def __init__(self, setting: Setting | None = None) -> None:
        super().__init__(setting)
        self.rules = self.setting.reading
        self.last: Event | None = None
        self.said: str | None = None
        self.bad = False
        self.counts: dict[str, float] = {}

    def handle(self, event: Event) -> None:
        self.events_seen += 1
        self.seen.session_id = self.seen.session_id or self._first("session", event)
        if self._fits("begin", event):
            self.last = None
        self._listen(event)
        self._count(event)
        if self._fits("bad", event):
            self.bad, self.said = True, self._first("error", event) or self.said
            self.seen.trouble = short(self.said)
        if self._fits("end", event):
            self.last = event

    def judge(self, exit_code: int | None, stderr: str) -> Outcome:
        if self.bad:
            return self.failed(self.said or stderr.strip(), **self._usage())
        if self.last is None or self.cut:
            return self.unfinished(exit_code, stderr)
        good = self.rules.get("good")
        if good and not any(fits(self.last, one) for one in _many(good)):
            return self.failed(self._first("error", self.last) or stderr.strip() or self.text or "", **self._usage())
        if exit_code == 0:
            return self.outcome(Verdict.SUCCEEDED, **self._usage())
        if was_killed(exit_code):
            return self.outcome(Verdict.KILLED, "killed", **self._usage())
        name = self.rules.get("exits", {}).get(str(exit_code)) or failure_patterns.failure_of(stderr) or "cli_failed"
        return self.outcome(Verdict.FAILED, name, stderr.strip() or None, **self._usage())

    def _listen(self, event: Event) -> None:
        for rule in _many(self.rules.get("text")):
            told = _text_at(event, rule)
            if told is not None:
                joined = (self.text or "") + told if isinstance(rule, dict) and rule.get("join") else told
                self.text, self.seen.message = text_of(joined), short(told)
        for rule in _many(self.rules.get("command")):
            told = _text_at(event, rule)
            if told:
                self.seen.add_command(told)
        for rule in _many(self.rules.get("file")):
            self.seen.add_file(_text_at(event, rule))

    def _count(self, event: Event) -> None:
        for name in (*COUNTERS, "cost_usd"):
            for path in _many(self.rules.get(name)):
                found = [v for v in (dollars(value) for value in at(event, path)) if v is not None]
                if found:
                    so_far = self.counts.get(name, 0) if self.rules.get("sum") else 0
                    self.counts[name] = so_far + sum(found)
                    break
        self.seen.usage = self._used()

    def _used(self) -> Usage:
        tokens = [number(self.counts.get(name)) for name in COUNTERS]
        cached_apart = self.rules.get("cached_apart") and tokens[0] is not None
        return Usage(tokens[0] + (tokens[1] or 0) if cached_apart and tokens[0] is not None else tokens[0],
                     tokens[1], tokens[2], dollars(self.counts.get("cost_usd")))  # fmt: skip

    def _usage(self) -> dict[str, Any]:
        told = self._used()
        if self.rules.get("cumulative"):
            return {"usage": told.since(self.before), "session_usage": told}
        return {"usage": told, "cost_source": "the CLI" if told.cost_usd is not None else None}

    def _first(self, name: str, event: Event) -> str | None:
        told = (_text_at(event, rule) for rule in _many(self.rules.get(name)))
        return next((text for text in told if text), None)

    def _fits(self, name: str, event: Event) -> bool:
        return any(fits(event, one) for one in _many(self.rules.get(name)))


def at(value: Any, path: Path) -> Iterator[Any]:
    """Every value at a path, at most MOST."""
    found = [value]
    for name in path.split("."):
        found = [inner for one in found for inner in _step(one, name)][:MOST]
    yield from found


def fits(event: Event, condition: Condition) -> bool:
    """Whether each path of the condition has its value."""
    return all(any(_is(value, wanted) for value in at(event, path)) for path, wanted in condition.items())


def _is(value: Any, wanted: Any) -> bool:
    return value is not None if wanted == "*" else value == wanted and type(value) is type(wanted)


def _step(value: Any, name: str) -> list[Any]:
    if name == "*":
        return list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    if isinstance(value, list):
        return value[-1:] if name == "-1" else []
    return [value[name]] if isinstance(value, dict) and name in value else []


def _text_at(event: Event, rule: Path | Mapping[str, Any]) -> str | None:
    """The text at a rule: a path, or `{when, path}`. Several texts are joined."""
    when, path = (rule.get("when", {}), rule.get("path", "")) if isinstance(rule, dict) else ({}, rule)
    if not fits(event, when):
        return None
    found = [value for value in at(event, str(path)) if isinstance(value, str)]
    return "".join(found) if found else None


def _many(value: Any) -> list[Any]:
    return [] if value is None else list(value) if isinstance(value, list | tuple) else [value]
