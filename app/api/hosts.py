"""Hosts for operators: which there are, how full; drain one, let it work again."""

from typing import Any

from flask import Response, jsonify

from app.api import answers
from app.api.described import Blueprint
from app.api.doors import Role, fleet, only
from app.domain.place import Fitness, Host
from app.services import assign
from app.store import places

blueprint = Blueprint("hosts", __name__, description="Machines that we go to")


@blueprint.get("")
@blueprint.answers(200, answers.Host(many=True))
@only(Role.VIEWER, Role.OPERATOR)
def list_hosts() -> Response:
    """Every host, its fitness and its slots."""
    with fleet().engine.begin() as conn:
        return jsonify([_host(host) for host in places.all_hosts(conn)])


@blueprint.post("/<path:host_id>/drain")
@blueprint.answers(200, answers.Host, "unknown")
@only(Role.OPERATOR)
def drain(host_id: str) -> Response:
    """Give the host no new work; what runs there goes on."""
    return jsonify(_host(assign.set_fitness(fleet(), host_id, Fitness.DRAINING, "drained by an operator")))


@blueprint.post("/<path:host_id>/resume")
@blueprint.answers(200, answers.Host, "unknown")
@only(Role.OPERATOR)
def resume(host_id: str) -> Response:
    """Let the host work again."""
    return jsonify(_host(assign.set_fitness(fleet(), host_id, Fitness.UNKNOWN, None)))


def _host(host: Host) -> dict[str, Any]:
    return {
        "host_id": host.host_id,
        "hostname": host.hostname,
        "fitness": host.fitness,
        "why": host.why,
        "slots": [
            {
                "agent_type": slots.agent_type,
                "capabilities": sorted(slots.capabilities),
                "max_concurrency": slots.max_concurrency,
                "taken": slots.taken,
            }
            for slots in host.slots
        ],
    }
