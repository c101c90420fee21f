"""Maps error messages and HTTP status codes of CLIs and model servers to names of failures."""

import re

LONGEST = 4000

# Failures by HTTP status.
STATUS = {
    400: "bad_request", 401: "auth", 402: "quota", 403: "auth", 404: "bad_request", 408: "network",
    413: "context_window", 429: "rate_limited", 503: "overloaded", 529: "overloaded",
}  # fmt: skip
_STATUS = re.compile(
    r"(?:unexpected status|last status:|API Error:?|HTTP(?: status)?:?|Request rejected|\bstatus[ :=]+)\s*\(?(\d{3})\b",
    re.I,
)

# The first match wins; the most exact names come first.
_PHRASES: dict[str, tuple[str, ...]] = {
    "usage_limit": (
        r"hit your (usage|session|weekly|[\w-]{1,20}) ?limit",
        r"(usage|hour|weekly|session) limit (has been )?reached", r"usage_limit_(reached|exceeded)",
        r"out of extra usage",
    ),
    "quota": (
        r"quota exceeded", r"exceeded your (current )?quota", r"insufficient[_ ](quota|credits|funds)",
        r"credit balance is too low", r"payment required", r"billing_error", r"billing hard limit",
    ),
    "context_window": (
        r"context window", r"context_length_exceeded", r"maximum context length", r"prompt is too long",
        r"input is too long",
    ),
    "not_logged_in": (
        r"not logged in", r"please run /login", r"missing environment variable", r"no api key",
        r"api[ _]key (is )?(not set|missing|not found|required)", r"must be logged in", r"login required",
        r"please (log|sign) in", r"set an auth method", r"no auth(entication)? (method|type)",
    ),
    "auth": (
        r"failed to authenticate", r"authentication[_ ](error|failed)", r"invalid (x-)?api[- _]key",
        r"incorrect api key", r"unauthorized", r"permission_error", r"oauth token (has )?expired",
        r"token (was |is |has been )?(revoked|expired)",
    ),
    "no_session": (
        r"no conversation found", r"no rollout found", r"requires a valid session id", r"session .{0,80}not found",
        r"thread .{0,80}not found", r"no (previous )?sessions? found", r"invalid session identifier",
    ),
    "session_in_use": (
        r"session id .{0,80}already in use",
    ),
    "not_as_root": (
        r"cannot be used with root",
    ),
    "no_repository": (
        r"not inside a trusted directory", r"not (in|inside) a git repo",
    ),
    "empty_prompt": (
        r"no prompt provided", r"input must be provided", r"no input provided", r"prompt (is|was) empty",
        r"must provide a (message|prompt)",
    ),
    "bad_flag": (
        r"unexpected argument", r"unknown (option|argument|flag)", r"unrecognized (option|argument)", r"unrecognised",
        r"invalid (option|value)", r"requires --\w", r"argument '.{0,80}' is invalid", r"no such option",
        r"the following required arguments", r"option '.{0,80}' is invalid",
    ),
    "cli_missing": (
        r"command not found", r"no such file or directory: .{0,40}\bbin/",
    ),
    "rate_limited": (
        r"too many requests", r"rate[ _-]?limit", r"resource_exhausted",
    ),
    "overloaded": (
        r"overloaded", r"at capacity",
    ),
    "server_error": (
        r"high demand", r"internal server error", r"bad gateway", r"server_error", r"api_error", r"internal error",
    ),
    "network": (
        r"stream (disconnected|closed)", r"connection", r"econn", r"enotfound", r"eai_again", r"getaddrinfo",
        r"network", r"timed? ?out", r"fetch failed", r"socket hang up", r"error sending request",
        r"waiting for network", r"broken pipe", r"tls", r"certificate",
    ),
    "bad_request": (
        r"invalid_request", r"bad request", r"model.{0,60}(not found|not supported|does not exist)",
    ),
    "max_turns": (
        r"maximum number of turns", r"max(imum)? (session )?turns", r"turn limit",
    ),
    "budget": (
        r"maximum budget",
    ),
}  # fmt: skip
_NAMES = [(name, re.compile("|".join(phrases), re.I)) for name, phrases in _PHRASES.items()]
_WRITE_REFUSED = re.compile(r"patch rejected: [^\n]{1,200}")


def failure_of(said: str) -> str | None:
    """The failure that a message names, or None. Its first LONGEST characters count."""
    said = said[:LONGEST]
    told = _STATUS.search(said)
    by_status = by_number(int(told[1])) if told else None
    by_words = next((name for name, pattern in _NAMES if pattern.search(said)), None)
    exact = by_words in ("usage_limit", "quota", "context_window", "not_logged_in")
    return by_words if exact or not by_status else by_status


def by_number(status: int) -> str | None:
    """The failure that an HTTP status means."""
    return STATUS.get(status) or (
        "server_error" if 500 <= status < 600 else "bad_request" if 400 <= status < 500 else None
    )


def refused_writes(stderr: str) -> list[str]:
    """Refused writes that a CLI reports only on stderr."""
    return _WRITE_REFUSED.findall(stderr)[:20]
