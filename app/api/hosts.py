"""Hosts for operators: which there are, how fit and how full; drain one, let it work again."""

from typing import Any

from flask import Blueprint, Response, jsonify

from app.api import responses
from app.api.auth import Role, fleet, only
from app.api.openapi import answers
from app.domain.host import Fitness, Host
from app.services.dispatch import host_health
from app.store import hosts, views

blueprint = Blueprint("hosts", __name__)


@blueprint.get("")
@answers(200, responses.Host(many=True))
@only(Role.VIEWER, Role.OPERATOR)
def list_hosts() -> Response:
    """Every host, its fitness, its slots, and what the last look at it showed."""
    with fleet().engine.begin() as conn:
        return jsonify([shown(host) for host in hosts.all_hosts(conn)])


@blueprint.get("/<path:host_id>")
@answers(200, responses.Host, "unknown")
@only(Role.VIEWER, Role.OPERATOR)
def get_host(host_id: str) -> Response:
    """One host."""
    with fleet().engine.begin() as conn:
        return jsonify(shown(host_health.find(hosts.all_hosts(conn), host_id)))


@blueprint.post("/<path:host_id>/drain")
@answers(200, responses.Host, "unknown")
@only(Role.OPERATOR)
def drain(host_id: str) -> Response:
    """Give the host no new work; what runs there goes on."""
    return jsonify(shown(host_health.set_fitness(fleet(), host_id, Fitness.DRAINING, "drained by an operator")))


@blueprint.post("/<path:host_id>/resume")
@answers(200, responses.Host, "unknown")
@only(Role.OPERATOR)
def resume(host_id: str) -> Response:
    """Let the host work again."""
    return jsonify(shown(host_health.set_fitness(fleet(), host_id, Fitness.UNKNOWN, None)))


def shown(host: Host) -> dict[str, Any]:
    """A host as the contract shows it."""
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
