"""reconcile: rounds over many unchanged repositories, compared with rounds over few.

python -m bench.reconcile [--few 20] [--many 1000]
"""

import argparse
import time
from collections.abc import Iterator
from datetime import datetime
from typing import NamedTuple

from app.cli.demo.forge import FakeForge
from app.ports import Fleet
from app.services.forge import reconcile
from app.store import periodic_jobs, repositories
from bench.figures import figure
from bench.webhooks import servers
from tests import builders

ROUNDS = 3


def main() -> None:
    asked = _arguments()
    with servers() as fleet, FakeForge(fleet.config.home / "forge") as forge:
        names = list(_create_repositories(fleet, forge, asked.many))
        few, many = (_measure(fleet, forge, some) for some in (names[: asked.few], names))
    figure("reconcile: a repository of many", many.ms, "ms", few.ms, ROUNDS)
    figure("reconcile: asked of the forge, a repository of many", many.calls, "calls", few.calls, ROUNDS)
    figure("reconcile: looked at in one round of many", many.seen, "repositories", asked.many, ROUNDS)


class Measured(NamedTuple):
    """Milliseconds and calls of the forge per repository, and repositories per round."""

    ms: float
    calls: float
    seen: float


def _create_repositories(fleet: Fleet, forge: FakeForge, count: int) -> Iterator[str]:
    token, owner = forge.add_user("fleet"), forge.add_user("alice")
    (fleet.config.home / "token").write_text(token)
    forge.add_organisation("acme", owners=["alice"])
    alice = forge.client(owner)
    for number in range(count):
        name = f"acme/widgets-{number}"
        forge.add_repository(name)
        forge.collaborate(name, "fleet", "write")
        alice.post(f"/repos/{name}/issues", json={"title": "Nobody asked us for this"}).raise_for_status()
        yield name


def _measure(fleet: Fleet, forge: FakeForge, names: list[str]) -> Measured:
    rules = [{**builders.declared()["repositories"][0], "name": name} for name in names]
    with fleet.engine.begin() as conn:
        main = builders.declared(forge.url)["forges"]["main"] | {"token_file": str(fleet.config.home / "token")}
        builders.apply(conn, forges={"main": main}, repositories=rules, hosts=[])
    while set(names) - _known_names(fleet):  # the first round reads everything
        reconcile.reconcile(fleet)
    took, seen = list[float](), 0
    forge.calls.clear()
    for _ in range(ROUNDS):
        before, begun = fleet.clock(), time.perf_counter()
        reconcile.reconcile(fleet)
        took.append(time.perf_counter() - begun)
        seen += _count_reconciled(fleet, before)
    return Measured(sum(took) / seen * 1000, len(forge.calls) / seen, seen / ROUNDS)


def _known_names(fleet: Fleet) -> set[str]:
    with fleet.engine.begin() as conn:
        return {row.full_name for row in repositories.all_repositories(conn)}


def _count_reconciled(fleet: Fleet, since: datetime) -> int:
    with fleet.engine.begin() as conn:
        return sum(at >= since for at in periodic_jobs.last_runs(conn, reconcile.JOB).values())


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--few", type=int, default=20)
    parser.add_argument("--many", type=int, default=1000)
    return parser.parse_args()


if __name__ == "__main__":
    main()
