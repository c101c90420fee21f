"""Endpoints of hosts for operators: list, show, drain, resume."""

from collections.abc import Mapping
from typing import Any, TypedDict

from flask import Blueprint, Response, jsonify

from app.api import host_responses
from app.api.auth import Role, allow, fleet
from app.api.openapi import answers
from app.domain.host import Fitness, Host, Origin
from app.services.dispatch import host_health
from app.store import hosts, views

blueprint = Blueprint("hosts", __name__)


class ShownSlots(TypedDict):
    """The slots of one kind of CLI on a host."""

    agent_type: str
    capabilities: list[str]
    max_concurrency: int
    taken: int
    missing: bool


class ShownHost(TypedDict):
    """A host as the API shows it; moments are RFC 3339. `probe` is Probe.as_json()."""

    host_id: str
    hostname: str
    fitness: Fitness
    why: str | None
    since: str | None
    origin: Origin
    labels: list[str]
    work_dir: str | None
    probed_at: str | None
    probe: Mapping[str, Any] | None
    slots: list[ShownSlots]


@blueprint.get("")
@answers(200, host_responses.Host(many=True))
@allow(Role.VIEWER, Role.OPERATOR)
def list_hosts() -> Response:
    """List hosts with their fitness, slots and last probe."""
    with fleet().engine.begin() as conn:
        return jsonify([as_json(host) for host in hosts.all_hosts(conn)])


@blueprint.get("/<path:host_id>")
@answers(200, host_responses.Host, "unknown")
@allow(Role.VIEWER, Role.OPERATOR)
def get_host(host_id: str) -> Response:
    """Show one host."""
    with fleet().engine.begin() as conn:
        return jsonify(as_json(host_health.find(hosts.all_hosts(conn), host_id)))


@blueprint.post("/<path:host_id>/drain")
@answers(200, host_responses.Host, "unknown")
@allow(Role.OPERATOR)
def drain(host_id: str) -> Response:
    """Start no new runs on the host; its current runs continue."""
    return jsonify(as_json(host_health.set_fitness(fleet(), host_id, Fitness.DRAINING, "drained by an operator")))


@blueprint.post("/<path:host_id>/resume")
@answers(200, host_responses.Host, "unknown")
@allow(Role.OPERATOR)
def resume(host_id: str) -> Response:
    """Start runs on the host again."""
    return jsonify(as_json(host_health.set_fitness(fleet(), host_id, Fitness.UNKNOWN, None)))


def as_json(host: Host) -> ShownHost:
    """The host as the API shows it."""
    return {
        "host_id": host.host_id,
        "hostname": host.hostname,
        "fitness": host.fitness,
        "why": host.why,
        "since": views.moment(host.since),
        "origin": host.origin,
        "labels": list(host.labels),
        "work_dir": host.work_dir,
        "probed_at": views.moment(host.probed_at),
        "probe": host.probe.as_json() if host.probe else None,
        "slots": [
            {
                "agent_type": slots.agent_type,
                "capabilities": sorted(slots.capabilities),
                "max_concurrency": slots.max_concurrency,
                "taken": slots.taken,
                "missing": slots.missing,
            }
            for slots in host.slots
        ],
    }
