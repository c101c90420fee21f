"""Keeps receipts until the server has answered them, across outages and restarts of the agent."""

from workers.agent.held_tasks import HeldTask
from workers.agent.receipt import Receipt
from workers.agent.state_dir import StateDir


class Outbox:
    """At most one receipt per lease: saved before the run counts as ended, deleted when it was answered."""

    def __init__(self, state: StateDir) -> None:
        self._state = state

    def put(self, held: HeldTask, receipt: Receipt) -> None:
        self._state.save_receipt(_name(held), receipt.as_json())

    def get(self, held: HeldTask) -> Receipt | None:
        saved = self._state.receipt(_name(held))
        return Receipt.from_json(saved) if saved else None

    def delete(self, held: HeldTask) -> None:
        self._state.save_receipt(_name(held), None)


def _name(held: HeldTask) -> str:
    return f"{held.worktree}.{held.lease}"
