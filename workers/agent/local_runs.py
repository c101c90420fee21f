"""This machine: the same supervisor that hosts have, called here."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from app.clis.template import CliTemplate
from app.domain import prompt
from app.domain.host import Address
from app.domain.host import Machine as HostMachine
from workers.agent.leases import Hold
from workers.errors import Unreachable
from workers.hosts.client import HostClient
from workers.runs.cli_call import describe_call

Json = dict[str, Any]
HERE = HostMachine("this machine", Address("localhost"))
PIECE = 1 << 18
GIT_USER = "fleet"
FOR = "refs/for/"  # a push there makes a pull request, and no branch
CUT_OFF = "It was ended halfway, since this machine could not reach the control plane. What it did so far is here."
LOG_MB = 128  # of a run's output that stay on this machine
TIMEOUT_SECS = 3600  # of a fleet that does not say
SIGNED = {"author_name": "agent-fleet", "author_email": "agent-fleet@localhost"}


class Machine:
    """Runs live in `home`, apart from those of others by `instance`; `forge_token` is for fetching and pushing."""

    def __init__(self, home: Path, instance: str, template: CliTemplate, forge_token: str | None) -> None:
        self._client = HostClient(home, lambda: instance)
        self._template = template
        self._credentials = {"username": GIT_USER, "password": forge_token} if forge_token else None

    def start(self, hold: Hold) -> None:
        """Start the run; one that is there is left as it is. Raises Unreachable."""
        self._ask("start", self.order(hold))

    def order(self, hold: Hold) -> Json:
        """What the supervisor is asked for. Who cannot go on with a session is told all of it, not the review alone."""
        work, all_of_it = hold.work, (hold.work.get("prompt") or {}).get("text") or hold.prompt
        goes_on = bool(hold.session and self._template.resume) or hold.prompt == all_of_it
        said = hold.prompt if goes_on else f"{all_of_it}\n{hold.prompt}"
        text = prompt.read_again(said, CUT_OFF if hold.cut else "")
        asked = describe_call(self._template, text, hold.session, work.get("timeout_secs") or TIMEOUT_SECS, LOG_MB)
        signed = {"message": work["task_id"]} | SIGNED | (work.get("commit") or {})
        delivery = {name: signed[name] for name in ("message", *SIGNED)} if work["repository"] else None
        return self._of(hold) | asked | {"validation": work.get("checks") or [], "delivery": delivery}

    def version(self, name: str) -> str | None:
        """What the CLI says its version is. None where it does not say."""
        asked = {"clis": {name: self._template.version_command}}
        try:
            found = self._ask("probe", asked).get("clis", {}).get(name)
        except Unreachable:
            return None
        return str(found)[:200] if found else None

    def poll(self, holds: Iterable[Hold]) -> dict[str, Json]:
        """What each run is at, and what its logs have grown by. Raises Unreachable."""
        asked = [{"run": hold.run, **hold.offsets} for hold in holds]
        return dict(self._ask("poll", {"runs": asked, "limit": PIECE})["runs"]) if asked else {}

    def output(self, hold: Hold) -> bytes:
        """All that is kept of what the CLI printed. Raises Unreachable."""
        said, offset, more = bytearray(), 0, True
        while more:
            asked = {"run": hold.run, "stdout": offset, "stderr": 1 << 62}
            seen = self._ask("poll", {"runs": [asked], "limit": PIECE * 4})["runs"][hold.run]
            piece = data_of(seen.get("stdout"))
            said, more = said + piece, bool(piece)
            offset = seen["stdout"]["offset"] + len(piece) if more else offset
        return bytes(said)

    def cancel(self, hold: Hold, grace_secs: float) -> None:
        """Have the run end. Raises Unreachable."""
        self._ask("cancel", {"run": hold.run, "grace_secs": grace_secs})

    def release(self, hold: Hold, with_worktree: bool) -> str | None:
        """Delete the run's folder, and the worktree once all in it is on the forge or saved: where. Raises
        Unreachable."""
        answer = self._ask("release", self._of(hold) | {"worktree": with_worktree})
        return answer.get("saved")

    def _of(self, hold: Hold) -> Json:
        repository, work = None, hold.work
        if work["repository"]:
            known = work["repository"]
            repository = {"url": known["clone_url"], "base": known["default_branch"], "branch": work["branch_name"]}
            repository |= _push(work.get("push") or {})
        credentials = self._credentials if repository else None
        return {"run": hold.run, "task": hold.task, "repository": repository, "credentials": credentials}

    def _ask(self, verb: str, request: Json) -> Json:
        return self._client.request(HERE, verb, request)


def _push(told: Json) -> Json:
    """How to push where that is not to a branch."""
    if not str(told.get("ref") or "").startswith(FOR):
        return {}
    fetch = {"fetch_from": told["fetch"]} if told.get("fetch") else {}
    return {"push_to": told["ref"], "push_options": list(told.get("options") or ()), **fetch}


def data_of(piece: Json | None) -> bytes:
    return bytes(piece["data"]) if piece else b""
