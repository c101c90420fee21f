"""Parses a request and refuses what would do harm later."""

from __future__ import annotations

import json
import os
import re

from workers.supervisor.constants import TYPE_CHECKING
from workers.supervisor.errors import Refused

if TYPE_CHECKING:
    from typing import Any

    from workers.supervisor.constants import Json

NAME = re.compile(r"(?!\.)[A-Za-z0-9._-]{1,120}\Z")
NOT_IN_BRANCH = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|//|/\.|@\{|\.lock(/|\Z)|\A[-/.]|[/.]\Z|\A\Z")
KINDS: dict[object, str] = {str: "a text", list: "a list", dict: "an object"}
RUN_FIELDS = {"instance": str, "run": str}
REQUIRED: dict[str, Json] = {
    "start": {**RUN_FIELDS, "task": str, "agent": dict, "agent.argv": list, "agent.prompt": str},
    "poll": {"instance": str, "runs": list},
    "cancel": RUN_FIELDS,
    "release": {**RUN_FIELDS, "task": str},
    "probe": {},
}
REQUIRED_INSIDE = {  # if the object is there at all
    "repository.url": str, "repository.branch": str, "repository.base": str,
    "credentials.username": str, "credentials.password": str,
    "delivery.message": str, "delivery.author_name": str, "delivery.author_email": str,
}  # fmt: skip


def parse_request(verb: str, text: bytes) -> Json:
    """Return the request, after it was checked. Its `path` becomes PATH. Raises Refused."""
    try:
        request = json.loads(text)
    except ValueError as error:
        raise Refused(f"the request on stdin is not JSON ({error}): send one JSON object") from None
    if not isinstance(request, dict):
        raise Refused("the request on stdin is not a JSON object: send one")
    for field, kind in [*REQUIRED[verb].items(), *REQUIRED_INSIDE.items()]:
        _check_field(verb, request, field, kind)
    for field in ("instance", "run", "task"):
        _check_name(field, request.get(field, "unasked"))
    for run in request.get("runs") or []:
        _check_name("run", run.get("run") if isinstance(run, dict) else run)
    _check_texts(request)
    _check_repository(request.get("repository") or {})
    if isinstance(request.get("path"), str):  # that of a login: a session without one finds fewer programs
        os.environ["PATH"] = request["path"]
    return request


def _check_field(verb: str, request: Json, field: str, kind: type) -> None:
    owner, _, name = field.rpartition(".")
    holder = request.get(owner) if owner else request
    if holder is not None and not (isinstance(holder, dict) and isinstance(holder.get(name), kind)):
        raise Refused(f"the request to {verb} needs '{field}' as {KINDS[kind]}: add it and ask again")


def _check_name(field: str, name: object) -> None:
    if not (isinstance(name, str) and NAME.match(name)):
        raise Refused(f"{field} {name!r} cannot name a folder: use up to 120 of A-Za-z0-9._- and no leading dot")


def _check_texts(request: Json) -> None:
    """Refuse arguments, variables and commands that are no texts or contain NUL."""
    agent: Json = request.get("agent") or {"argv": ["-"]}
    hooks: Json = request.get("hooks") or {}
    commands = [command for moment in hooks.values() for command in _as_list(moment)]
    texts = [*agent["argv"], *(agent.get("env") or {}).values(), *commands, *(request.get("validation") or [])]
    if not agent["argv"] or not all(isinstance(text, str) and "\0" not in text for text in texts):
        raise Refused("agent.argv must name a program; agent.env, hooks and validation hold texts without NUL")


def _as_list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise Refused("each of hooks must be a list of commands")
    return value


def _check_repository(repository: Json) -> None:
    """Refuse names that git would take for options, and a password in the address: that is written to disk."""
    for field in ("base", "branch") if repository else ():
        if NOT_IN_BRANCH.search(repository[field]):
            raise Refused(f"repository.{field} {repository[field]!r} is no branch name: choose another")
    if not re.match(r"[0-9a-f]{40,64}\Z", repository.get("pushed") or "0" * 40):
        raise Refused("repository.pushed must be the full name of a commit, or absent")
    if re.match(r"-|[^/]*//[^/@]*:[^/@]*@", repository.get("url", "")):
        raise Refused("repository.url must be a plain URL: send a password in credentials, not in it")
