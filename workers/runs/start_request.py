"""Makes the supervisor's `start` request of an order: the CLI's template filled in, no shell anywhere."""

from dataclasses import asdict

from app.clis import catalog
from app.services.dispatch.git_flow import RunRepository
from app.services.dispatch.start_order import Order
from workers.runs.cli_call import describe_call
from workers.supervisor_messages import HookedStartRequest, RepositoryRequest


def start_request(order: Order, log_limit_mb: int) -> HookedStartRequest:
    """The body of a `start` request. Raises Refused if the CLI is unknown."""
    template = catalog.template_of(order.cli, order.template, order.overrides)
    needs_fresh_session = order.session and not template.resume
    prompt = order.fresh_prompt if needs_fresh_session else order.prompt
    return {
        **describe_call(template, prompt, order.session, order.timeout_secs, log_limit_mb),
        "run": order.run.name,
        "task": order.task_name,
        "repository": repository_as_json(order.repository) if order.repository else None,
        "credentials": asdict(order.credentials) if order.credentials else None,
        "validation": order.validation,
        "hooks": dict(order.hooks),
        "delivery": asdict(order.delivery) if order.delivery else None,
    }


def repository_as_json(repository: RunRepository) -> RepositoryRequest:
    """The `repository` of a `start` or `release` request. Keys without a value are left out."""
    body: RepositoryRequest = {"url": repository.url, "base": repository.base, "branch": repository.branch}
    if agit := repository.agit:
        body |= {"push_to": agit.push_to, "push_options": list(agit.push_options)}
        if agit.fetch_from:
            body["fetch_from"] = agit.fetch_from
    if repository.pushed:
        body["pushed"] = repository.pushed
    return body
