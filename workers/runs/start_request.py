"""Makes the supervisor's `start` request of an order: the CLI's template filled in, no shell anywhere."""

from app.clis import catalog
from app.services.dispatch.start_order import Order
from workers.protocol import Json
from workers.runs.cli_call import describe_call


def start_request(order: Order, log_limit_mb: int) -> Json:
    """The body of a `start` request. Raises Refused if the CLI is unknown."""
    template = catalog.template_of(order.cli, order.template, order.overrides)
    needs_fresh_session = order.session and not template.resume
    prompt = order.fresh_prompt if needs_fresh_session else order.prompt
    return describe_call(template, prompt, order.session, order.timeout_secs, log_limit_mb) | {
        "run": order.run.name,
        "task": order.task_name,
        "repository": order.repository,
        "credentials": order.credentials,
        "validation": order.validation,
        "hooks": dict(order.hooks),
        "delivery": order.delivery,
    }
