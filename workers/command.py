"""Makes the supervisor's request out of an order: the CLI's template filled in, no shell anywhere."""

import importlib
import re
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from math import isfinite
from pathlib import Path
from typing import Any

from app.domain.errors import Kind, Refused
from app.domain.run import Outcome, Usage
from app.ports import Fleet
from app.services.start import Order
from app.store.tables import Row
from workers import reach

CLIS = Path(__file__).with_name("clis")
HEARTBEAT_SECS = 5
GRACE_SECS = 10
FINAL_EVENTS = ("result", "turn.completed", "turn.failed")  # the last word of CLIs that speak in lines of JSON
SESSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}\Z")


def spec(fleet: Fleet, order: Order) -> dict[str, Any]:
    """The `start` request of an order. Raises Refused when nobody knows the CLI."""
    template = template_of(order.cli, order.template)
    asked = of_cli(template, order.prompt, order.session, order.timeout_secs, fleet.config.log_limit_mb)
    return about(fleet, order.host, order.run["name"]) | asked | {
        "task": order.task_name,
        "repository": order.repository,
        "credentials": order.credentials,
        "validation": order.validation,
        "delivery": order.delivery,
    }  # fmt: skip


def of_cli(
    template: Mapping[str, Any], prompt: str, session: str | None, timeout_secs: int, log_limit_mb: int
) -> dict[str, Any]:
    """What a `start` request says of the CLI: how to call it, on a session or afresh, and how long it may take. Of an
    output of more than so many MB the middle is left out."""
    resume = session and template.get("resume")
    argv = [part.replace("{session_id}", session or "") for part in (resume or template["argv"])]
    return {
        "agent": {
            "argv": argv,
            "env": dict(template.get("env") or {}),
            "prompt": prompt,
            "prompt_via": template.get("prompt", "stdin"),
            "final": [] if template.get("parser", "raw") == "raw" else list(FINAL_EVENTS),
        },
        "limits": {
            "wall_secs": min(timeout_secs, template.get("timeout_secs", timeout_secs)),
            "silence_secs": template.get("silence_secs", 600),
            "grace_secs": GRACE_SECS,
            "log_head_bytes": log_limit_mb << 19,
            "log_tail_bytes": log_limit_mb << 19,
        },
        "heartbeat_secs": HEARTBEAT_SECS,
    }


def about(fleet: Fleet, host: Row, run: str | None = None) -> dict[str, Any]:
    """What every request to a host begins with."""
    return {"home": reach.home(fleet, host), "instance": fleet.instance()} | ({"run": run} if run else {})


def template_of(cli: str, declared: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """How to run a CLI: as fleet.toml declares it, else as the preset of that name does."""
    template = declared or _preset(cli)
    if template is None:
        known = ", ".join(sorted(folder.parent.name for folder in CLIS.glob("*/cli.toml")))
        raise Refused(
            Kind.UNKNOWN,
            f"No CLI is named {cli!r}: declare [clis.{cli}] in fleet.toml, or use one of {known}.",
        )
    return template


def parse(cli: str, declared: Mapping[str, Any] | None, stdout: bytes, exit_code: int | None) -> Outcome:
    """What a CLI's output says about how it ended."""
    parser = (declared or _preset(cli) or {}).get("parser", "raw")
    return clean(_parsers().get(parser, _parsers()["raw"]).parse(stdout, exit_code))


def clean(outcome: Outcome) -> Outcome:
    """An outcome that can be stored and told, whatever a CLI printed: texts are texts without half characters, counts
    are finite numbers, and a session id can be no option of the next call."""
    session = outcome.session_id if isinstance(outcome.session_id, str) and SESSION.match(outcome.session_id) else None
    usage = Usage(**{name: _number(value) for name, value in vars(outcome.usage).items()})
    return replace(outcome, final_text=_text(outcome.final_text), session_id=session, usage=usage)


def _text(value: object) -> str | None:
    return value.replace("\0", "").encode(errors="replace").decode() if isinstance(value, str) else None


def _number(value: object) -> Any:
    return value if isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value) else None


@cache
def _preset(cli: str) -> Mapping[str, Any] | None:
    path = CLIS / cli / "cli.toml"
    return tomllib.loads(path.read_text()) if cli.replace("-", "").isalnum() and path.is_file() else None


@cache
def _parsers() -> Mapping[str, Any]:
    """Every parser by the name it gives itself: a folder with a parser.py is enough to add one."""
    modules = [importlib.import_module(f"workers.clis.{path.parent.name}.parser") for path in CLIS.glob("*/parser.py")]
    return {module.NAME: module for module in modules}
