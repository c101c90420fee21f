"""Parses the output of Codex: its JSONL, the form before October 2025, and lines of its session files."""

from typing import Any

from app.clis import failure_patterns, reset_times
from app.clis.json_stream import Event, parsed
from app.clis.parser import EventParser, Setting, number, short, text_of, value_at, was_killed
from app.domain.run import Outcome, Usage, Verdict

NAME = "codex-jsonl"
NEAR_LIMIT = 80  # per cent of a window; a warning from there on
DENIED_STATUS = ("declined", "denied", "rejected")


class OutputParser(EventParser):
    """Success is a final `turn.completed` event and exit code 0. Of all errors only `turn.failed` is final."""

    NAME = NAME

    def __init__(self, setting: Setting | None = None) -> None:
        super().__init__(setting)
        self.last: str | None = None  # the final event: completed or failed
        self.said: str | None = None  # the latest error message
        self.resets_at: str | None = None
        self.whole = Usage()  # counters of the whole thread

    def handle(self, event: Event) -> None:
        kind = event.get("type")
        if isinstance(event.get("msg"), dict):
            self.events_seen += 1
            return self._old(event["msg"])
        if kind == "event_msg":
            return self._session_file(event.get("payload"))
        handler = _HANDLERS.get(kind) if isinstance(kind, str) else None
        if handler:
            self.events_seen += 1
            handler(self, event)
        return None

    def judge(self, exit_code: int | None, stderr: str) -> Outcome:
        self.denied += failure_patterns.refused_writes(stderr)
        if self.last == "failed":
            return self._failed(self.said or "")
        if self.last != "completed" or self.cut:
            spoken = None if (self.said or "").startswith("Reconnecting") else self.said
            if spoken and not was_killed(exit_code):
                return self._failed(spoken)
            return self.unfinished(exit_code, stderr)
        if exit_code == 0:
            return self.outcome(Verdict.SUCCEEDED)
        if was_killed(exit_code):
            return self.outcome(Verdict.KILLED, "killed")
        return self.outcome(Verdict.FAILED, "cli_failed", stderr.strip() or None)

    def outcome(self, verdict: Verdict, failure: str | None = None, error: str | None = None, **more: Any) -> Outcome:
        """Adds the usage, whatever the verdict."""
        counted = self.whole != Usage()
        used = {"usage": self.whole.since(self.before), "session_usage": self.whole} if counted else {}
        return super().outcome(verdict, failure, error, **used | more)

    def _failed(self, said: str) -> Outcome:
        known = {"resets_at": self.resets_at} if self.resets_at else {}
        return self.failed(said, _failure(said), **known)

    # --- events since October 2025

    def _thread(self, event: Event) -> None:
        self.seen.session_id = text_of(event.get("thread_id")) or self.seen.session_id

    def _turn(self, _: Event) -> None:
        self.last = None

    def _error(self, event: Event) -> None:
        self.said = text_of(event.get("message"))
        self.seen.trouble = short(self.said)

    def _completed(self, event: Event) -> None:
        self.last, self.seen.trouble = "completed", None
        self._count(event.get("usage"))

    def _turn_failed(self, event: Event) -> None:
        error = event.get("error")
        self.last = "failed"
        self.said = text_of(value_at(error, "message")) or text_of(error) or self.said
        self._count(event.get("usage"))

    def _item(self, event: Event) -> None:
        self.last = None
        told = event.get("item")
        item: Event = told if isinstance(told, dict) else {}
        kind, done = value_at(item, "type") or value_at(item, "item_type"), event.get("type") == "item.completed"
        if kind in ("agent_message", "assistant_message") and done:
            self._says(value_at(item, "text"))
        elif kind == "command_execution":
            self._command(item, done)
        elif kind == "file_change":
            self._change(item, done)

    def _says(self, said: object) -> None:
        if isinstance(said, str):
            self.text, self.seen.message = text_of(said), short(said)
            self.said = None  # the error before it was not final

    def _command(self, item: Event, done: bool) -> None:
        if done:
            self.seen.add_command(item.get("command"))
        else:
            self.seen.command = short(item.get("command"))
        if item.get("status") in DENIED_STATUS:
            self.denied.append(f"command: {short(item.get('command'))}")

    def _change(self, item: Event, done: bool) -> None:
        paths = [value_at(change, "path") for change in item.get("changes") or []]
        if item.get("status") in DENIED_STATUS:
            self.denied += [f"write: {short(path)}" for path in paths]
        elif done and item.get("status") != "failed":
            for path in paths:
                self.seen.add_file(path)

    def _count(self, used: object) -> None:
        """Take the counters of the whole thread. The input includes what came from the cache."""
        told = Usage(
            number(value_at(used, "input_tokens")),
            number(value_at(used, "cached_input_tokens")),
            number(value_at(used, "output_tokens")),
        )
        if told != Usage():
            self.whole = told
            self.seen.usage = told.since(self.before)

    # --- events before October 2025: no final event, and exit code 0 on a limit

    def _old(self, msg: Event) -> None:
        kind = msg.get("type")
        if kind == "session_configured":
            self.seen.session_id = text_of(msg.get("session_id")) or self.seen.session_id
        elif kind == "agent_message":
            self._says(msg.get("message"))
        elif kind == "exec_command_begin":
            self.seen.add_command(msg.get("command"))
        elif kind == "patch_apply_begin":
            for path in msg.get("changes") or {}:
                self.seen.add_file(path)
        elif kind == "token_count":
            self._count(value_at(msg, "info", "total_token_usage"))
        elif kind in ("error", "stream_error"):
            self._error(msg)
        elif kind == "task_complete":
            self.last = "failed" if self.said else "completed"
        elif kind == "turn_aborted":
            self.last, self.said = "failed", "the turn was aborted"

    # --- its session file, which has the exact reset time, and the tokens after each answer of the model

    def _is_older(self, used: object) -> bool:
        """Whether a line of the session file is older than the known counters. Lines arrive late and repeatedly."""
        return (number(value_at(used, "input_tokens")) or 0) < (self.whole.input_tokens or 0)

    def _session_file(self, payload: object) -> None:
        if not self._is_older(value_at(payload, "info", "total_token_usage")):
            self._count(value_at(payload, "info", "total_token_usage"))
        windows = [value_at(payload, "rate_limits", name) for name in ("primary", "secondary")]
        for window in windows:
            used, at = (
                value_at(window, "used_percent"),
                reset_times.rfc3339(reset_times.from_epoch(value_at(window, "resets_at"))),
            )
            if isinstance(used, int | float) and used >= 100:
                self.resets_at = max(self.resets_at or "", at or "") or None
            elif isinstance(used, int | float) and used >= NEAR_LIMIT:
                self.seen.warning = f"{used:.0f} % of the plan's limit are used; it resets at {at}"
        error = value_at(payload, "error")
        if value_at(payload, "type") == "task_complete" and isinstance(error, dict):
            self.last, self.said = "failed", text_of(error.get("message")) or "usage limit reached"


_HANDLERS = {
    "thread.started": OutputParser._thread,
    "turn.started": OutputParser._turn,
    "turn.completed": OutputParser._completed,
    "turn.failed": OutputParser._turn_failed,
    "error": OutputParser._error,
    "item.started": OutputParser._item,
    "item.updated": OutputParser._item,
    "item.completed": OutputParser._item,
}
_BODY = ("usage_limit", "quota", "context_window", "auth", "rate_limited")


def _failure(said: str) -> str | None:
    """The failure in a message. A JSON body comes from a 400, unless it names a more exact failure."""
    body = parsed(said.encode()) if said.startswith("{") else None
    if not isinstance(body, dict):
        return failure_patterns.failure_of(said)
    named = failure_patterns.failure_of(f"{value_at(body, 'error', 'code')} {value_at(body, 'error', 'message')}")
    return named if named in _BODY else "bad_request"
