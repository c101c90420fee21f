"""Makes the supervisor's `start` request of an order: the CLI's template filled in, no shell anywhere."""

from dataclasses import asdict

from app.clis import catalog
from app.services.dispatch.git_flow import RunRepository
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
        "repository": order.repository and repository_as_json(order.repository),
        "credentials": order.credentials and asdict(order.credentials),
        "validation": order.validation,
        "hooks": dict(order.hooks),
        "delivery": order.delivery and asdict(order.delivery),
    }


def repository_as_json(repository: RunRepository) -> Json:
    """The `repository` of a `start` or `release` request. Keys without a value are left out."""
    agit, pushed = repository.agit, repository.pushed
    return {
        "url": repository.url,
        "base": repository.base,
        "branch": repository.branch,
        **({"push_to": agit.push_to, "push_options": list(agit.push_options)} if agit else {}),
        **({"fetch_from": agit.fetch_from} if agit and agit.fetch_from else {}),
        **({"pushed": pushed} if pushed else {}),
    }
