"""Who runs which tests: a file goes to one test process whole, the files of one stage to the same, the longest first."""

from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

STAGES = {
    "tests/chaos/test_deliveries.py": "the stage of hosts",
    "tests/chaos/test_hostile.py": "the stage of hosts",
    "tests/chaos/test_processes_die.py": "the stage of hosts",
    "tests/journeys/test_agent.py": "the stage of agents",
    "tests/journeys/test_agent_protocol.py": "the stage of agents",
}
LONG = ("tests/chaos/", "tests/journeys/", "tests/workers/test_real_clis", "tests/services/", "tests/webhooks/")


class ByFile(LoadScopeScheduling):  # type: ignore[misc]
    """What a file's tests share (a server, a stage) is started once."""

    def __init__(self, config: pytest.Config, log: Any) -> None:
        super().__init__(config, log)
        config.option.loadscopereorder = False  # by the number of tests, which says nothing of their length

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.split("::", maxsplit=1)[0]
        return STAGES.get(file, file)


def longest_first(items: list[pytest.Item]) -> None:
    """So that none is left over for the end; and the journeys of one stage side by side, in one process too."""

    def rank(item: pytest.Item) -> tuple[int, str]:
        file = item.nodeid.split("::")[0]
        place = next((place for place, begin in enumerate(LONG) if file.startswith(begin)), len(LONG))
        return place, STAGES.get(file, "")

    items.sort(key=rank)
