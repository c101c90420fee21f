"""Parses the output of Claude Code: a single result, a stream or an array. Qwen Code, Amp and Cursor print the same."""

import re
from functools import reduce
from typing import Any

from app.clis import failure_patterns, reset_times
from app.clis.json_stream import Event
from app.clis.parser import (
    LONGEST_WORD,
    EventParser,
    Setting,
    dollars,
    number,
    short,
    sum_known,
    text_of,
    value_at,
    was_killed,
)
from app.domain.run import Outcome, Usage, Verdict

NAME = "claude-result"
# If a result reports success, only these whole sentences mean a limit: an agent may write about limits, too.
_LIMIT_ALONE = re.compile(
    r"Claude (AI )?usage limit reached(\|\d{10,13})?\.?|(You've|You’ve) hit your [\w -]{1,30}limit\b.{0,80}"
    r"|[\w -]{1,20}limit reached\b.{0,10}\bresets\b.{0,60}"
)
_ERRORS = {  # by the values of `subtype`, `error` and `api_error`
    "error_max_turns": "max_turns", "error_max_budget_usd": "budget", "usage_limit_reached": "usage_limit",
    "connection_failed": "network", "authentication_failed": "auth", "authentication_error": "auth",
    "rate_limit": "rate_limited",
    "server_error": "server_error", "overloaded": "overloaded",
    "overloaded_error": "overloaded", "billing_error": "quota",
    "invalid_request": "bad_request", "max_output_tokens": "context_window",
}  # fmt: skip
_WRITES, _COMMANDS = ("file_path", "path", "notebook_path"), ("command", "cmd")
_NO_TOOLS_THAT_WRITE = ("Read", "Glob", "Grep", "LS", "read_file", "list_directory")
NOTHING = Usage()
MOST_MESSAGES, MOST_MODELS, MOST_AT_ONCE = 5000, 20, 100


class OutputParser(EventParser):
    """Success is a final `result` event without any mark of an error, and exit code 0."""

    NAME = NAME

    def __init__(self, setting: Setting | None = None) -> None:
        super().__init__(setting)
        self.result: Event | None = None
        self.answered: str | None = None  # the kind of error of the latest synthetic answer
        self.limit: Event = {}  # the latest word about the plan's windows
        self.asked: dict[str, str] = {}  # tool calls, as people read them
        self.writing: dict[str, str] = {}  # the files of those that have not answered yet
        self.counted: dict[tuple[str, str], Usage] = {}  # the latest answers, by model and id
        self.begun: dict[str, Event] = {}  # what each agent in it is answering now, where that is told in parts

    def handle(self, event: Event) -> None:
        self.events_seen += 1
        self.seen.session_id = self.seen.session_id or text_of(event.get("session_id"))
        kind = event.get("type")
        handler = _HANDLERS.get(kind) if isinstance(kind, str) else None
        if handler:
            handler(self, event)

    def judge(self, exit_code: int | None, stderr: str) -> Outcome:
        if self.result is None or (self.cut and not _is_error(self.result)):
            return self._without_result(exit_code, stderr)
        text, more = self._text(), self._more()
        if not _is_error(self.result):
            if _LIMIT_ALONE.fullmatch((text or "").strip()):
                return self.failed(text or "", "usage_limit", **self._reset(), **more)
            return self._well(exit_code, stderr, more)
        if str(value_at(self.result, "terminal_reason")).startswith("aborted"):
            return self.outcome(Verdict.KILLED, "killed", text, **more)
        failure = self._failure(text or "")
        known = self._reset() if failure == "usage_limit" else {}
        return self.failed(text or "", failure, **known, **more)

    def _well(self, exit_code: int | None, stderr: str, more: dict[str, Any]) -> Outcome:
        if exit_code == 0:
            return self.outcome(Verdict.SUCCEEDED, **more)
        if was_killed(exit_code):
            return self.outcome(Verdict.KILLED, "killed", **more)
        name = "denied" if more["denied_actions"] else failure_patterns.failure_of(stderr) or "cli_failed"
        return self.outcome(Verdict.FAILED, name, stderr.strip() or None, **more)

    def _without_result(self, exit_code: int | None, stderr: str) -> Outcome:
        if self.answered and not was_killed(exit_code):
            known = self._reset() if self.answered == "usage_limit" else {}
            return self.failed(self.text or self.answered, self.answered, **known)
        return self.unfinished(exit_code, stderr)

    # --- events while it works

    def _system(self, event: Event) -> None:
        if event.get("subtype") == "api_retry":
            self.seen.trouble = f"{event.get('error')} ({event.get('error_status')}), try {event.get('attempt')}"

    def _assistant(self, event: Event) -> None:
        self.result = None
        message, error = event.get("message"), event.get("error")
        synthetic = value_at(message, "model") == "<synthetic>"
        self.answered = self._kind(event, error) if synthetic and isinstance(error, str) else None
        content = value_at(message, "content")
        for block in content if isinstance(content, list) else ():
            self._block(block)
        if not synthetic:
            self.seen.trouble = None
            self._count(message)

    def _block(self, block: object) -> None:
        if value_at(block, "type") == "text":
            said = text_of(value_at(block, "text"))
            self.text, self.seen.message = said or self.text, short(said) or self.seen.message
        elif value_at(block, "type") == "tool_use":
            self._tool(str(value_at(block, "name")), value_at(block, "input"), value_at(block, "id"))

    def _tool(self, name: str, given: object, id_: object) -> None:
        command = next((value_at(given, key) for key in _COMMANDS if value_at(given, key)), None)
        path = next((value_at(given, key) for key in _WRITES if value_at(given, key)), None)
        if command:
            self.seen.add_command(command)
        elif isinstance(path, str) and isinstance(id_, str) and name not in _NO_TOOLS_THAT_WRITE:
            self.writing[id_] = path[:LONGEST_WORD]
            if len(self.writing) > MOST_AT_ONCE:
                del self.writing[next(iter(self.writing))]
        if isinstance(id_, str) and len(self.asked) < MOST_MESSAGES:
            self.asked[id_] = action(name, given)

    def _user(self, event: Event) -> None:
        self.result = None
        content = value_at(event.get("message"), "content")
        for block in content if isinstance(content, list) else ():
            path = self.writing.pop(str(value_at(block, "tool_use_id")), None)
            if path and value_at(block, "is_error") is not True:
                self.seen.add_file(path)
        for told in event.get("tool_result_meta") or []:
            if value_at(told, "permission_decision", "decision") in ("reject", "deny", "denied"):
                self.denied.append(self.asked.get(str(value_at(told, "id")), "a tool"))

    def _rate_limit(self, event: Event) -> None:
        told = event.get("rate_limit_info")
        self.limit = told if isinstance(told, dict) else {}
        if self.limit.get("status") == "allowed_warning":
            used, at = (
                self.limit.get("utilization"),
                reset_times.rfc3339(reset_times.from_epoch(self.limit.get("resetsAt"))),
            )
            share = f"{used:.0%}" if isinstance(used, int | float) else "much"
            self.seen.warning = f"{share} of the {self.limit.get('rateLimitType')} limit are used; it resets at {at}"

    def _result(self, event: Event) -> None:
        self.result = event
        self.seen.session_id = text_of(event.get("session_id")) or self.seen.session_id

    def _part(self, event: Event) -> None:
        """A part of an answer. Its last part has the final token count; other events have an early one."""
        told, who = event.get("event"), str(event.get("parent_tool_use_id"))
        kind, begun = value_at(told, "type"), self.begun.get(who)
        if kind == "message_start" and len(self.begun) < MOST_AT_ONCE:
            self.begun[who] = value_at(told, "message")
        elif kind == "message_delta" and begun is not None:
            self._count({**begun, "usage": {**begun["usage"], **value_at(told, "usage")}})
        elif kind == "message_stop":
            self.begun.pop(who, None)

    def _count(self, message: object) -> None:
        """Add up the tokens by model. An answer that comes in pieces counts once, with its latest count."""
        used, models = self._tokens(value_at(message, "usage")), self.seen.by_model
        if used == NOTHING:
            return
        model = short(value_at(message, "model")) or ""
        model = model if model in models or len(models) < MOST_MODELS else ""
        answer = (model, str(value_at(message, "id")))
        models[model] = _plus(models.get(model, NOTHING), used, self.counted.pop(answer, NOTHING))
        self.seen.usage = reduce(_plus, models.values())
        self.counted[answer] = used
        if len(self.counted) > MOST_MESSAGES:
            del self.counted[next(iter(self.counted))]

    # --- the final result

    def _text(self) -> str | None:
        result = self.result or {}
        told = [text_of(result.get("result")), _lines(result.get("errors")), text_of(result.get("error")),
                text_of(value_at(result.get("error"), "message"))]  # fmt: skip
        said = next((text for text in told if text), None)
        self.text = said or (told[0] if told[0] is not None else self.text)
        return said

    def _more(self) -> dict[str, Any]:
        result = self.result or {}
        cost = dollars(result.get("total_cost_usd", result.get("cost_usd")))
        tokens, before = self._tokens(result.get("usage")), self.before
        spent = Usage(cost_usd=cost).since(Usage(cost_usd=before.cost_usd)).cost_usd
        told = [one for one in result.get("permission_denials") or [] if isinstance(one, dict)]
        self.denied += [action(str(one.get("tool_name")), one.get("tool_input")) for one in told[:50]]
        return {
            "usage": Usage(tokens.input_tokens, tokens.cached_tokens, tokens.output_tokens, spent),
            "session_usage": Usage(cost_usd=cost) if cost is not None else None,
            "cost_source": "the CLI" if cost is not None else None,
            "denied_actions": tuple(dict.fromkeys(self.denied))[:50],
        }

    def _tokens(self, used: object) -> Usage:
        """Anthropic reports cached input separately; others include it in the input (`cached_in_input`)."""
        plain, cached = number(value_at(used, "input_tokens")), number(value_at(used, "cache_read_input_tokens"))
        apart = not self.setting.reading.get("cached_in_input")
        input_ = sum_known(plain, cached, number(value_at(used, "cache_creation_input_tokens"))) if apart else plain
        return Usage(input_ if plain is not None else None, cached, number(value_at(used, "output_tokens")))

    def _failure(self, said: str) -> str | None:
        result = self.result or {}
        return self._kind(result, result.get("subtype")) or self.answered or failure_patterns.failure_of(said)

    def _kind(self, event: Event, kind: object) -> str | None:
        """The failure of an answer of the API: the most exact of its marks wins."""
        said, status = (
            failure_patterns.failure_of(text_of(event.get("result")) or self.text or ""),
            number(event.get("api_error_status")),
        )
        if event.get("api_error") == "usage_limit_reached" or (self._is_rejected() and status in (None, 429)):
            return "usage_limit"
        if said in ("usage_limit", "quota", "context_window", "not_logged_in"):
            return said
        by_status = failure_patterns.by_number(status) if status else None
        return by_status or _ERRORS.get(str(event.get("api_error"))) or _ERRORS.get(str(kind))

    def _is_rejected(self) -> bool:
        """Whether the plan rejected the request. A busy server says `rejected`, too, but names no window."""
        plan = self.limit.get("rateLimitType") or self.limit.get("resetsAt")
        overage = self.limit.get("isUsingOverage") is True and self.limit.get("overageStatus") == "rejected"
        return bool(plan and (self.limit.get("status") == "rejected" or overage))

    def _reset(self) -> dict[str, Any]:
        at = reset_times.from_epoch(self.limit.get("resetsAt"))
        return {"resets_at": reset_times.rfc3339(at)} if at else {}


_HANDLERS = {
    "system": OutputParser._system,
    "assistant": OutputParser._assistant,
    "user": OutputParser._user,
    "rate_limit_event": OutputParser._rate_limit,
    "result": OutputParser._result,
    "stream_event": OutputParser._part,
}


def _is_error(result: Event) -> bool:
    """False only if `is_error` and `subtype`, as far as present, report success, and at least one is present."""
    flag, subtype = result.get("is_error"), result.get("subtype")
    return not (flag in (False, None) and subtype in ("success", None) and (flag is False or subtype == "success"))


def _plus(sum_: Usage, more: Usage, instead_of: Usage = NOTHING) -> Usage:
    """The sum plus `more`, minus `instead_of`, an earlier count of the same answer."""
    pairs = zip(vars(sum_).values(), vars(more).values(), vars(instead_of).values(), strict=True)
    return Usage(*(have if new is None else (have or 0) + new - (old or 0) for have, new, old in pairs))


def action(tool: str, given: object) -> str:
    """A tool call on one line: `Bash: git push`."""
    what = next((value_at(given, key) for key in (*_COMMANDS, *_WRITES, "url", "query") if value_at(given, key)), None)
    return f"{short(tool)}: {short(str(what))}" if what else str(short(tool))


def _lines(errors: object) -> str | None:
    return "\n".join(str(error) for error in errors[:20]) if isinstance(errors, list) and errors else None
