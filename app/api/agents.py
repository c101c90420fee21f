"""Endpoints of agents: register, heartbeat, dequeue, deregister; and the list of agents for operators."""

from flask import Blueprint, Response, current_app, jsonify, request

from app.api import agent_responses, loaded, requests
from app.api.auth import Role, allow, allow_enrolment, authenticate, bearer_token, check_is_caller, fleet
from app.api.long_poll import LongPolls
from app.api.openapi import answers, arguments, response
from app.domain import matching
from app.domain.agent import Registration
from app.domain.errors import Kind, Refused
from app.services.agents import leases, registry
from app.services.agents.registry import hash_of

blueprint = Blueprint("agents", __name__)
LONGEST_KEY = 200


@blueprint.post("/register")
@answers(201, agent_responses.Welcome, more={200: response(agent_responses.Welcome, "Registered before")})
@allow_enrolment
@arguments(requests.Registration)
def register(given: loaded.Registration) -> tuple[Response, int]:
    """Register an agent, or rotate its token. The response shows the token once; the previous one works for 60 more
    seconds."""
    registration = Registration(
        agent_id=given["agent_id"],
        agent_type=given["agent_type"],
        hostname=given["hostname"],
        capabilities=tuple(given["capabilities"]),
        max_concurrency=given["max_concurrency"],
        metadata=given["metadata"],
    )
    token, is_new = registry.register(fleet(), registration, bearer_token())
    config = fleet().config
    return jsonify(
        agent_id=given["agent_id"],
        registry_token=token,
        heartbeat_interval_secs=config.heartbeat_secs,
        offline_after_secs=config.offline_after_secs,
    ), 201 if is_new else 200


@blueprint.post("/heartbeat")
@answers(200, agent_responses.Pulse, "unknown")
@allow(Role.AGENT)
@arguments(requests.Heartbeat)
def heartbeat(given: loaded.Heartbeat) -> Response:
    """Send a heartbeat, and receive an update for each task of the agent."""
    agent_id, named = check_is_caller(given["agent_id"]), given["tasks"]
    held = None if named is None else {leases.HeldLease(one["task_id"], one["lease"]) for one in named}
    updates = leases.heartbeat(fleet(), agent_id, held)
    return jsonify(status="online", tasks=[update.as_json() for update in updates])


@blueprint.post("/deregister")
@answers(200, agent_responses.Farewell, "unknown")
@allow(Role.AGENT)
@arguments(requests.AgentOnly)
def deregister(given: loaded.AgentOnly) -> Response:
    """Deregister the agent. The tasks that it holds go back to the queue."""
    return jsonify(requeued=registry.deregister(fleet(), check_is_caller(given["agent_id"])))


@blueprint.get("")
@answers(200, agent_responses.Agent(many=True))
@allow(Role.VIEWER, Role.OPERATOR)
@arguments(requests.AgentFilter, location="query")
def list_agents(filters: loaded.AgentFilter) -> Response:
    """List agents with their capabilities and tasks."""
    wanted = matching.capability(filters["capability"]) if "capability" in filters else None
    found = [one for one in registry.list_agents(fleet()) if wanted in (None, *one["capabilities"])]
    return jsonify([one for one in found if filters.get("status") in (None, one["status"])])


def dequeue(given: loaded.Dequeue) -> Response:
    """Take tasks: the highest priority first, then the oldest. Waits up to `wait_secs` for one."""
    key = request.headers.get("Idempotency-Key")
    if key is not None and not 0 < len(key) <= LONGEST_KEY:
        raise Refused(Kind.INVALID, f"Idempotency-Key: must have 1 to {LONGEST_KEY} characters.")
    agent_id, words = given["agent_id"], given["capabilities"]
    can = None if words is None else tuple(words)
    claim = leases.ClaimRequest(agent_id, hash_of(bearer_token()), can, given["max_tasks"], key)
    found = _claim(claim, given["wait_secs"])
    if found is None:
        raise Refused(Kind.BUSY, "Too many agents wait for work: try again in a few seconds.")
    if not found:
        return Response(status=204)
    return jsonify({"tasks": found}) if given["max_tasks"] > 1 else jsonify(found[0])


def _claim(claim: leases.ClaimRequest, seconds: float) -> list[leases.ShownTask] | None:
    """The claim checks the token itself, in one trip to the database; if it refuses, find out why."""
    long_polls: LongPolls = current_app.extensions["long_polls"]
    try:
        return long_polls.until(lambda last: leases.claim(fleet(), claim, last), seconds)
    except leases.UnknownAgent:
        authenticate(Role.AGENT)
        check_is_caller(claim.agent_id)
        raise
