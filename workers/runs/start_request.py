"""Makes the supervisor's request out of an order: the CLI's template filled in, no shell anywhere."""

import re
from collections.abc import Mapping
from dataclasses import replace
from math import isfinite
from types import MappingProxyType
from typing import Any

from app.clis import catalog
from app.clis.catalog import Template
from app.clis.parser import Setting
from app.config.cli_schemas import price_of
from app.domain.run import Outcome, Usage
from app.ports import Fleet
from app.services.dispatch.start_order import Order
from app.store.tables import Row
from workers.hosts import client

HEARTBEAT_SECS = 5
GRACE_SECS = 10
NOTHING: Mapping[str, Any] = MappingProxyType({})
SESSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}\Z")


def spec(fleet: Fleet, order: Order) -> dict[str, Any]:
    """The `start` request of an order. Raises Refused when nobody knows the CLI."""
    template = catalog.template_of(order.cli, order.template, order.overrides)
    begins_anew = order.session and not template.get("resume")
    prompt = order.fresh_prompt if begins_anew else order.prompt
    asked = of_cli(template, prompt, order.session, order.timeout_secs, fleet.config.log_limit_mb)
    return about(fleet, order.host, order.run["name"]) | asked | {
        "task": order.task_name,
        "repository": order.repository,
        "credentials": order.credentials,
        "validation": order.validation,
        "hooks": dict(order.hooks),
        "delivery": order.delivery,
    }  # fmt: skip


def of_cli(
    template: Template, prompt: str, session: str | None, timeout_secs: int, log_limit_mb: int
) -> dict[str, Any]:
    """What a `start` request says of the CLI: how to call it, on a session or afresh, and how long it may take. Of an
    output of more than so many MB the middle is left out."""
    return {
        "agent": agent(template, session) | {"prompt": prompt},
        "limits": {
            "wall_secs": min(timeout_secs, template.get("timeout_secs", timeout_secs)),
            "silence_secs": template["silence_secs"],
            "grace_secs": GRACE_SECS,
            "log_head_bytes": log_limit_mb << 19,
            "log_tail_bytes": log_limit_mb << 19,
        },
        "heartbeat_secs": HEARTBEAT_SECS,
    }


def agent(template: Template, session: str | None) -> dict[str, Any]:
    """How the host starts the CLI, afresh or to go on with a session; the prompt apart. The flags that depend on its
    version are chosen there."""
    resume = session and template.get("resume")
    argv = [part.replace("{session_id}", session or "") for part in (resume or template["argv"])]
    return {
        "argv": argv,
        "flags": _flags(template),
        "version": list(template.get("version") or []),
        "env": dict(template.get("env") or {}),
        "prompt_via": template["prompt"],
        "final": list(template.get("final") or []),
        "session_file": template.get("session_file"),
        "apart": template.get("apart", True),
        "checks_apart": template.get("checks_apart", False),
    }


def _flags(template: Template) -> list[dict[str, Any]]:
    """Those of its versions, and the model's name as this CLI wants it."""
    model = str(template.get("model") or "")
    named = [word.replace("{model}", model) for word in template.get("model_flag") or []]
    return [*(template.get("flags") or []), *([{"argv": named}] if model and named else [])]


def about(fleet: Fleet, host: Row, run: str | None = None) -> dict[str, Any]:
    """What every request to a host begins with."""
    return {"home": client.home(fleet, host), "instance": fleet.instance()} | ({"run": run} if run else {})


def read(
    template: Template,
    stdout: bytes,
    exit_code: int | None,
    session: str | None = None,
    before: Usage | None = None,
    noted: object = None,
) -> Outcome:
    """What a CLI's whole output amounts to; `before` is what the `session` that it went on with had used, `noted` what
    it wrote down elsewhere."""
    reading = template.get("reading") or {}
    reader = catalog.reader(template["parser"], Setting(before=before or Usage(), session=session, reading=reading))
    reader.feed(stdout)
    reader.overhear(noted)
    heard = clean(reader.finish(exit_code))
    usage, source = priced(heard.usage, template, reader.progress().by_model)
    return replace(heard, usage=usage, cost_source=heard.cost_source or source)


def clean(outcome: Outcome) -> Outcome:
    """An outcome that can be stored and told, whatever a CLI printed: texts are texts without half characters, counts
    are finite numbers, and a session id can be no option of the next call."""
    session = session_of(outcome.session_id)
    whole = outcome.session_usage and clean_usage(outcome.session_usage)
    texts: dict[str, Any] = {name: _text(getattr(outcome, name)) for name in ("final_text", "error", "warning")}
    denied = tuple(text for one in outcome.denied_actions if (text := _text(one)))
    return replace(
        outcome,
        session_id=session,
        usage=clean_usage(outcome.usage),
        session_usage=whole,
        denied_actions=denied,
        **texts,
    )


def session_of(told: object) -> str | None:
    return told if isinstance(told, str) and SESSION.match(told) else None


def clean_json(value: Any) -> Any:
    """Nested texts and numbers that can be stored."""
    if isinstance(value, dict):
        return {str(_text(str(name))): clean_json(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [clean_json(inner) for inner in value]
    return (
        _text(value) if isinstance(value, str) else None if isinstance(value, float) and not isfinite(value) else value
    )


def priced(usage: Usage, template: Template, by_model: Mapping[str, Usage] = NOTHING) -> tuple[Usage, str | None]:
    """With dollars reckoned where the CLI tells none, and who reckoned them: from the prices of the models of which it
    says that they answered, the template's `prices` first; where one has none or it says nothing, of its `model`."""
    if usage.cost_usd is not None or usage.input_tokens is None:
        return usage, None
    told = {model: price_of(model, template.get("prices") or {}) for model in by_model}
    if not told or not all(told.values()):
        told, by_model = {str(template.get("model")): template.get("price") or {}}, {}
    if not all(told.values()):
        return usage, None
    used = by_model if len(told) > 1 else dict.fromkeys(told, usage)
    cost = sum(_cost(used[model], price) for model, price in told.items())
    named = " and ".join(f"{model}, {price['as_of']}" for model, price in told.items())
    return replace(usage, cost_usd=cost / 1e6), f"the price of {named}"


def _cost(used: Usage, price: Mapping[str, Any]) -> float:
    """In millionths of a dollar."""
    input_, cached = used.input_tokens or 0, used.cached_tokens or 0
    fresh = max(0, input_ - cached)
    return float(fresh * price["input"] + cached * price["cached"] + (used.output_tokens or 0) * price["output"])


def clean_usage(usage: Usage) -> Usage:
    return Usage(**{name: _number(value) for name, value in vars(usage).items()})


def _text(value: object) -> str | None:
    return value.replace("\0", "").encode(errors="replace").decode() if isinstance(value, str) else None


def _number(value: object) -> Any:
    return value if isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value) else None
