"""The outbox: receipts that wait until the server has answered them, through outages and our own restarts."""

from typing import Any

from workers.agent.leases import Hold
from workers.agent.state_dir import Folder

Json = dict[str, Any]


class Outbox:
    """One letter for each lease at most: written before the run counts as ended, dropped when it was answered."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder

    def put(self, hold: Hold, letter: Json) -> None:
        self._folder.keep_letter(_name(hold), letter)

    def letter(self, hold: Hold) -> Json | None:
        return self._folder.letter(_name(hold))

    def drop(self, hold: Hold) -> None:
        self._folder.keep_letter(_name(hold), None)


def _name(hold: Hold) -> str:
    return f"{hold.task}.{hold.lease}"
