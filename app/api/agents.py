"""Agents: they register, beat, ask for work and leave; operators see who is there."""

from typing import Any

from flask import Blueprint, Response, current_app, jsonify, request

from app.api import requests, responses
from app.api.auth import Role, as_agent, fleet, knocking, let_in, only, shown
from app.api.long_poll import Waiting
from app.api.openapi import answers, arguments, response
from app.domain import matching
from app.domain.errors import Kind, Refused
from app.services.agents import leases, registry
from app.services.agents.registry import hash_of

blueprint = Blueprint("agents", __name__)
LONGEST_KEY = 200


@blueprint.post("/register")
@answers(201, responses.Welcome, more={200: response(responses.Welcome, "Known before")})
@knocking
@arguments(requests.Registration)
def register(given: dict[str, Any]) -> tuple[Response, int]:
    """Introduce an agent, or renew it. The token is told this once; the one before works for 60 seconds more."""
    token, is_new = registry.register(fleet(), given, shown())
    config = fleet().config
    return jsonify(
        agent_id=given["agent_id"],
        registry_token=token,
        heartbeat_interval_secs=config.heartbeat_secs,
        offline_after_secs=config.offline_after_secs,
    ), 201 if is_new else 200


@blueprint.post("/heartbeat")
@answers(200, responses.Pulse, "unknown")
@only(Role.AGENT)
@arguments(requests.Heartbeat)
def heartbeat(given: dict[str, Any]) -> Response:
    """Say that the agent lives, and hear what became of its tasks."""
    news = leases.beat(fleet(), as_agent(given["agent_id"]), given["tasks"])
    return jsonify(status="online", tasks=news)


@blueprint.post("/deregister")
@answers(200, responses.Farewell, "unknown")
@only(Role.AGENT)
@arguments(requests.AgentOnly)
def deregister(given: dict[str, Any]) -> Response:
    """Leave. What the agent holds goes back to the queue."""
    return jsonify(requeued=registry.deregister(fleet(), as_agent(given["agent_id"])))


@blueprint.get("")
@answers(200, responses.Agent(many=True))
@only(Role.VIEWER, Role.OPERATOR)
@arguments(requests.AgentFilter, location="query")
def list_agents(asked: dict[str, Any]) -> Response:
    """Who is there, what they can do, what they hold."""
    wanted = matching.capability(asked["capability"]) if "capability" in asked else None
    found = [one for one in registry.listed(fleet()) if wanted in (None, *one["capabilities"])]
    return jsonify([one for one in found if asked.get("status") in (None, one["status"])])


def dequeue(given: dict[str, Any]) -> Response:
    """Ask for work: the highest priority first, then the oldest. Waits up to `wait_secs` for some to come."""
    key = request.headers.get("Idempotency-Key")
    if key is not None and not 0 < len(key) <= LONGEST_KEY:
        raise Refused(Kind.INVALID, f"Idempotency-Key: must have 1 to {LONGEST_KEY} characters.")
    agent_id, words = given["agent_id"], given["capabilities"]
    wish = leases.Wish(agent_id, hash_of(shown()), None if words is None else tuple(words), given["max_tasks"], key)
    found = _looked_for(wish, given["wait_secs"])
    if found is None:
        raise Refused(Kind.BUSY, "Too many agents wait here already: ask again in a few seconds.")
    if not found:
        return Response(status=204)
    return jsonify({"tasks": found}) if given["max_tasks"] > 1 else jsonify(found[0])


def _looked_for(wish: leases.Wish, seconds: float) -> list[dict[str, Any]] | None:
    """The question lets the agent in by itself; only when it does not is the door asked why."""
    waiting: Waiting = current_app.extensions["waiting"]
    try:
        return waiting.until(lambda last: leases.claim(fleet(), wish, last), seconds)
    except leases.Stranger:
        let_in(Role.AGENT)
        as_agent(wish.agent_id)
        raise
