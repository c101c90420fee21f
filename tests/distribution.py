"""Distributes tests over processes: a file to one process, files that share a stage to the same one, the longest first."""

from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

STAGES = {
    "tests/chaos/test_deliveries.py": "the stage of hosts",
    "tests/chaos/test_hostile.py": "the stage of hosts",
    "tests/chaos/test_processes_die.py": "the stage of hosts",
    "tests/journeys/test_agent.py": "the stage of agents",
    "tests/journeys/test_agent_protocol.py": "the stage of agents",
    "tests/journeys/test_agent_refusals.py": "the stage of agents",
}
LONG = ("tests/chaos/", "tests/journeys/", "tests/workers/test_real_clis", "tests/services/", "tests/webhooks/")


class ByFile(LoadScopeScheduling):  # type: ignore[misc]
    """Start once what the tests of a file share: a server, a stage."""

    def __init__(self, config: pytest.Config, log: Any) -> None:
        super().__init__(config, log)
        config.option.loadscopereorder = False  # by the number of tests, which says nothing of their length

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.split("::", maxsplit=1)[0]
        return STAGES.get(file, file)


def longest_first(items: list[pytest.Item]) -> None:
    """Sort the long tests first, and the tests of one stage beside each other."""

    def rank(item: pytest.Item) -> tuple[int, str]:
        file = item.nodeid.split("::")[0]
        place = next((place for place, begin in enumerate(LONG) if file.startswith(begin)), len(LONG))
        return place, STAGES.get(file, "")

    items.sort(key=rank)
