"""Defines the base of the parsers: it takes the output in pieces, and returns progress and, at the end, an Outcome.

It never raises.
"""

import re
from collections.abc import Iterable, Mapping
from copy import copy
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, ClassVar, Protocol

from app.clis import failure_patterns, reset_times
from app.clis.json_stream import LONGEST, Event, Events, parsed
from app.domain.failures import LIMITS
from app.domain.run import Outcome, Usage, Verdict

LONGEST_TEXT, LONGEST_WORD, MOST_FILES = 65_536, 300, 50
STDERR_KEPT = 65_536
_NOTICE = re.compile(r"^WARNING: .*$\n?", re.M)  # lines of stderr that report no failure
UNEXPECTED_SHAPE = (TypeError, LookupError, ValueError, AttributeError, ArithmeticError, RecursionError)


@dataclass
class Progress:
    """What the output says about a run so far. Its size is bounded."""

    session_id: str | None = None
    message: str | None = None
    command: str | None = None
    commands: int = 0
    files: list[str] = field(default_factory=list)
    usage: Usage = field(default_factory=Usage)
    by_model: dict[str, Usage] = field(default_factory=dict)  # empty if the CLI does not name the models
    trouble: str | None = None
    warning: str | None = None

    def as_json(self) -> dict[str, Any]:
        told = vars(self) | {"usage": vars(self.usage)}
        return {name: value for name, value in told.items() if name != "by_model"}

    def add_file(self, path: object) -> None:
        if isinstance(path, str) and path and path not in self.files and len(self.files) < MOST_FILES:
            self.files.append(path[:LONGEST_WORD])

    def add_command(self, command: object) -> None:
        self.commands += 1
        self.command = short(command)


class Parser(Protocol):
    """Reads the output of one run."""

    setting: "Setting"

    def feed(self, data: bytes) -> None: ...
    def feed_session_line(self, noted: object) -> None: ...
    def progress(self) -> Progress: ...
    def finish(self, exit_code: int | None, stderr: bytes = b"") -> Outcome: ...


@dataclass(frozen=True)
class Setting:
    """What a parser must know besides the output."""

    now: datetime = field(default_factory=lambda: datetime.now(UTC))  # when the output was printed
    before: Usage = field(default_factory=Usage)  # what the session had used before this run
    session: str | None = None  # the session of `before`; None: any
    reading: Mapping[str, Any] = field(default_factory=dict)  # the `[reading]` table of the CLI's template
    longest_line: int = LONGEST  # bytes; a longer line is dropped


class EventParser:
    """Base of parsers of JSON events. A subclass defines `handle` (one event) and `judge` (the end)."""

    NAME: ClassVar[str]

    def __init__(self, setting: Setting | None = None) -> None:
        self.setting = setting or Setting()
        self.seen = Progress()
        self.events_seen = 0
        self.denied: list[str] = []
        self.text: str | None = None
        self._events = Events(self.setting.longest_line)

    def feed(self, data: bytes) -> None:
        self._take(self._events.feed(data))

    def feed_session_line(self, noted: object) -> None:
        """Take a line of the CLI's session file, which is not part of its output."""
        event = parsed(noted.encode("utf-8", "replace")) if isinstance(noted, str) else None
        self._take([event] if isinstance(event, dict) else [])

    def progress(self) -> Progress:
        return self.seen

    def finish(self, exit_code: int | None, stderr: bytes = b"") -> Outcome:
        """The outcome if the output ends here. The parser is not changed and can be fed again."""
        clone = self._copy()
        clone._take(clone._events.end())
        said = stderr[-STDERR_KEPT:].decode("utf-8", "replace")
        try:
            return clone.judge(exit_code, said)
        except UNEXPECTED_SHAPE:  # the output may have any shape
            return clone.outcome(Verdict.UNKNOWN, "unreadable")

    def _copy(self) -> "EventParser":
        """An independent copy. Events are shared, since they never change."""
        clone = copy(self)
        for name, value in vars(self).items():
            if isinstance(value, list | dict):
                setattr(clone, name, copy(value))
        clone.seen = replace(self.seen, files=[*self.seen.files], by_model={**self.seen.by_model})
        clone._events = self._events.copy()
        return clone

    def handle(self, event: Event) -> None:
        raise NotImplementedError

    def judge(self, exit_code: int | None, stderr: str) -> Outcome:
        raise NotImplementedError

    @property
    def cut(self) -> bool:
        return self._events.cut

    @property
    def before(self) -> Usage:
        """What the session had used before this run; nothing if the CLI began another session."""
        return self.setting.before if self.setting.session in (None, self.seen.session_id) else Usage()

    def outcome(self, verdict: Verdict, failure: str | None = None, error: str | None = None, **more: Any) -> Outcome:
        """An outcome with everything known so far. A failure by a limit gets the verdict LIMITED."""
        limited = failure in LIMITS and verdict is Verdict.FAILED
        plain: dict[str, Any] = {
            "final_text": error or self.text, "session_id": self.seen.session_id, "usage": self.seen.usage,
            "denied_actions": tuple(dict.fromkeys(self.denied)), "warning": self.seen.warning, "error": error,
        }  # fmt: skip
        return Outcome(Verdict.LIMITED if limited else verdict, failure=failure, **plain | more)

    def failed(self, said: str, failure: str | None = None, **more: Any) -> Outcome:
        """A failure described by `said`, with the moment at which a limit resets if `said` names it."""
        name = failure or failure_patterns.failure_of(said) or "cli_failed"
        if name in LIMITS:
            more = {"resets_at": reset_times.rfc3339(reset_times.reset_in(said, self.setting.now))} | more
        return self.outcome(Verdict.FAILED, name, said[:LONGEST_TEXT] or None, **more)

    def unfinished(self, exit_code: int | None, stderr: str, said: str | None = None) -> Outcome:
        """The outcome of an output without a final event: the CLI was killed, did not start, or the output was cut.

        `said` is the last error that the CLI reported.
        """
        if was_killed(exit_code):
            return self.outcome(Verdict.KILLED, "killed")
        last = _NOTICE.sub("", stderr).strip()[-LONGEST_TEXT:]
        if said and failure_patterns.failure_of(said):
            return self.failed(said)
        if last and exit_code != 0 and (name := failure_patterns.failure_of(last)):
            return self.failed(last, name)
        verdict = Verdict.UNKNOWN if exit_code == 0 else Verdict.FAILED
        if self.events_seen:
            return self.outcome(verdict, "cut_off", last or None)
        return self.outcome(
            verdict, "unreadable" if exit_code == 0 or self._events.skipped else "not_started", last or None
        )

    def _take(self, events: Iterable[Event]) -> None:
        for event in events:
            try:
                self.handle(event)
            except UNEXPECTED_SHAPE:  # the event may have any shape
                self.events_seen += 1


def was_killed(exit_code: int | None) -> bool:
    """Whether a signal ended the process: 128 + n as in a shell, -n as in Python, None if unknown."""
    return exit_code is None or exit_code < 0 or 128 < exit_code <= 192


def value_at(event: object, *path: str) -> Any:
    """The value at a path of names, or None if a value on the way is not an object."""
    for name in path:
        event = event.get(name) if isinstance(event, dict) else None
    return event


def text_of(value: object) -> str | None:
    return value[:LONGEST_TEXT] if isinstance(value, str) else None


def short(value: object) -> str | None:
    """The value on one line of at most LONGEST_WORD characters."""
    if isinstance(value, list):
        value = " ".join(str(word) for word in value[:50])
    return " ".join(value[: 4 * LONGEST_WORD].split())[:LONGEST_WORD] if isinstance(value, str) else None


def number(value: object) -> int | None:
    """The value as a count, or None if it is not one."""
    counts = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e15
    return int(value) if counts else None  # type: ignore[call-overload]


def dollars(value: object) -> float | None:
    """The value as an amount of dollars, or None if it is not one."""
    counts = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e9
    return float(value) if counts else None  # type: ignore[arg-type]


def sum_known(*counts: int | None) -> int | None:
    """The sum of the known counts, or None if there is none."""
    known = [count for count in counts if count is not None]
    return sum(known) if known else None
