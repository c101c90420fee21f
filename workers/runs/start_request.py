"""Makes the supervisor's request out of an order: the CLI's template filled in, no shell anywhere."""

from dataclasses import replace
from typing import Any

from app.clis import catalog
from app.clis.command_line import fill_template
from app.clis.outcomes import sanitize
from app.clis.parser import Setting
from app.clis.pricing import add_cost
from app.clis.template import CliTemplate
from app.domain.run import Outcome, Usage
from app.ports import Fleet
from app.services.dispatch.start_order import Order
from app.store.tables import Row
from workers.hosts import client

HEARTBEAT_SECS = 5
GRACE_SECS = 10


def spec(fleet: Fleet, order: Order) -> dict[str, Any]:
    """The `start` request of an order. Raises Refused when nobody knows the CLI."""
    template = catalog.template_of(order.cli, order.template, order.overrides)
    begins_anew = order.session and not template.resume
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
    template: CliTemplate, prompt: str, session: str | None, timeout_secs: int, log_limit_mb: int
) -> dict[str, Any]:
    """What a `start` request says of the CLI: how to call it, on a session or afresh, and how long it may take. Of an
    output of more than so many MB the middle is left out."""
    return {
        "agent": fill_template(template, session) | {"prompt": prompt},
        "limits": {
            "wall_secs": min(timeout_secs, template.timeout_secs or timeout_secs),
            "silence_secs": template.silence_secs,
            "grace_secs": GRACE_SECS,
            "log_head_bytes": log_limit_mb << 19,
            "log_tail_bytes": log_limit_mb << 19,
        },
        "heartbeat_secs": HEARTBEAT_SECS,
    }


def about(fleet: Fleet, host: Row, run: str | None = None) -> dict[str, Any]:
    """What every request to a host begins with."""
    return {"home": client.home(fleet, host), "instance": fleet.instance()} | ({"run": run} if run else {})


def read(
    template: CliTemplate,
    stdout: bytes,
    exit_code: int | None,
    session: str | None = None,
    before: Usage | None = None,
    noted: object = None,
) -> Outcome:
    """What a CLI's whole output amounts to; `before` is what the `session` that it went on with had used, `noted` what
    it wrote down elsewhere."""
    setting = Setting(before=before or Usage(), session=session, reading=template.reading)
    parser = catalog.make_parser(template.parser, setting)
    parser.feed(stdout)
    parser.feed_session_line(noted)
    heard = sanitize(parser.finish(exit_code))
    usage, source = add_cost(heard.usage, template, parser.progress().by_model)
    return replace(heard, usage=usage, cost_source=heard.cost_source or source)
