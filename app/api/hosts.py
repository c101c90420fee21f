"""Hosts for operators: which there are, how fit and how full; drain one, let it work again."""

from typing import Any

from flask import Response, jsonify

from app.api import answers
from app.api.described import Blueprint
from app.api.doors import Role, fleet, only
from app.domain.place import Fitness, Host
from app.services import inspect
from app.store import places, views

blueprint = Blueprint("hosts", __name__, description="Machines that we go to")


@blueprint.get("")
@blueprint.answers(200, answers.Host(many=True))
@only(Role.VIEWER, Role.OPERATOR)
def list_hosts() -> Response:
    """Every host, its fitness, its slots, and what the last look at it showed."""
    with fleet().engine.begin() as conn:
        return jsonify([shown(host) for host in places.all_hosts(conn)])


@blueprint.get("/<path:host_id>")
@blueprint.answers(200, answers.Host, "unknown")
@only(Role.VIEWER, Role.OPERATOR)
def get_host(host_id: str) -> Response:
    """One host."""
    with fleet().engine.begin() as conn:
        return jsonify(shown(inspect.find(places.all_hosts(conn), host_id)))


@blueprint.post("/<path:host_id>/drain")
@blueprint.answers(200, answers.Host, "unknown")
@only(Role.OPERATOR)
def drain(host_id: str) -> Response:
    """Give the host no new work; what runs there goes on."""
    return jsonify(shown(inspect.set_fitness(fleet(), host_id, Fitness.DRAINING, "drained by an operator")))


@blueprint.post("/<path:host_id>/resume")
@blueprint.answers(200, answers.Host, "unknown")
@only(Role.OPERATOR)
def resume(host_id: str) -> Response:
    """Let the host work again."""
    return jsonify(shown(inspect.set_fitness(fleet(), host_id, Fitness.UNKNOWN, None)))


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
        "probe": host.probe,
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
