"""Starts, polls, cancels and releases runs on this machine, by the same supervisor that hosts have."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from app.clis.template import CliTemplate
from app.domain import prompt
from workers.agent.held_tasks import HeldTask
from workers.agent.messages import Work
from workers.errors import Unable, Unreachable
from workers.hosts.local import LocalSupervisors
from workers.protocol import LogPiece, PollAnswer, RunStatus
from workers.runs.cli_call import describe_call
from workers.ssh.deadlines import Deadlines
from workers.supervisor_messages import (
    Body,
    RepositoryRequest,
    StartRequest,
    SupervisorAnswer,
    WorktreeRequest,
)

POLL_BYTES, READ_BYTES = 1 << 18, 1 << 20  # of each log in one answer
PAST_THE_END = 1 << 62  # an offset that no log reaches
GIT_USER = "fleet"
FOR = "refs/for/"  # a push there makes a pull request, and no branch
INTERRUPTED = "It was ended halfway, since this machine could not reach the control plane. What it did so far is here."
LOG_MB = 128  # of a run's output that are kept on this machine
TIMEOUT_SECS = 3600  # if the fleet names none
AUTHOR = {"author_name": "agent-fleet", "author_email": "agent-fleet@localhost"}


class LocalRuns:
    """The runs below the directory `home`. `instance` separates them from other agents' runs.

    `forge_token` is the password for fetching and pushing.
    """

    def __init__(self, home: Path, instance: str, template: CliTemplate, forge_token: str | None) -> None:
        self._supervisors = LocalSupervisors(Deadlines())
        self._names = {"home": str(home), "instance": instance}
        self._template = template
        self._credentials = {"username": GIT_USER, "password": forge_token} if forge_token else None

    def start(self, held: HeldTask) -> None:
        """Start the run; a run that exists is left as it is. Raises Unreachable."""
        self._request("start", self.start_request(held))

    def start_request(self, held: HeldTask) -> StartRequest:
        """A CLI that cannot resume the session gets the whole prompt, not the review alone."""
        work, whole = held.work, held.work.prompt or held.prompt
        is_enough = bool(held.session and self._template.resume) or held.prompt == whole
        told = held.prompt if is_enough else f"{whole}\n{held.prompt}"
        text = prompt.read_again(told, INTERRUPTED if held.interrupted else "")
        call = describe_call(self._template, text, held.session, work.timeout_secs or TIMEOUT_SECS, LOG_MB)
        commit = {"message": work.task_id, **AUTHOR, **work.commit}
        delivery = {name: commit[name] for name in ("message", *AUTHOR)} if work.repository else None
        return {**self.describe_run(held), **call, "validation": list(work.checks), "delivery": delivery}

    def describe_run(self, held: HeldTask) -> WorktreeRequest:
        """The names of the run and its worktree, and the repository."""
        repository = _describe_repository(held.work)
        credentials = self._credentials if repository else None
        return {"run": held.run_name, "task": held.worktree, "repository": repository, "credentials": credentials}

    def cli_version(self, name: str) -> str | None:
        """The version that the CLI prints; None if it prints none."""
        try:
            found = self._request("probe", {"clis": {name: self._template.version_command}}).get("clis", {}).get(name)
        except Unreachable:
            return None
        return str(found)[:200] if found else None

    def poll(self, tasks: Iterable[HeldTask]) -> dict[str, RunStatus]:
        """The status of each run by name, with the new bytes of its logs. Raises Unreachable."""
        asked = [{"run": held.run_name, **held.offsets} for held in tasks]
        return self._poll(asked, POLL_BYTES) if asked else {}

    def output(self, held: HeldTask) -> bytes:
        """The whole standard output that is kept of the CLI. Raises Unreachable."""
        pieces, offset = [], 0
        while piece := self._read_piece(held, offset):
            pieces.append(piece.data)
            offset = piece.end
        return b"".join(pieces)

    def cancel(self, held: HeldTask, grace_secs: float) -> None:
        """End the run; KILL follows `grace_secs` after TERM. Raises Unreachable."""
        self._request("cancel", {"run": held.run_name, "grace_secs": grace_secs})

    def release(self, held: HeldTask, with_worktree: bool) -> str | None:
        """Delete the run's folder, and the worktree once all in it is pushed or saved. Returns where it was saved.

        Raises Unreachable.
        """
        saved = self._request("release", {**self.describe_run(held), "worktree": with_worktree}).get("saved")
        return str(saved) if saved else None

    def _read_piece(self, held: HeldTask, offset: int) -> LogPiece | None:
        """The next piece of the output; None at its end."""
        asked = {"run": held.run_name, "stdout": offset, "stderr": PAST_THE_END}
        piece = self._poll([asked], READ_BYTES)[held.run_name].logs.get("stdout")
        return piece if piece and piece.data else None

    def _poll(self, asked: Sequence[Body], limit: int) -> dict[str, RunStatus]:
        return dict(PollAnswer.from_json(self._request("poll", {"runs": asked, "limit": limit})).runs)

    def _request(self, verb: str, body: Body) -> SupervisorAnswer:
        try:
            answer = self._supervisors.request(verb, {**self._names, **body})
        except Unreachable as why:
            raise type(why)(f"the supervisor of this machine did not answer `{verb}`: {why}") from why
        if "error" in answer:
            raise Unable(f"the supervisor of this machine could not `{verb}`: {answer['error']}")
        return answer


def _describe_repository(work: Work) -> RepositoryRequest | None:
    """The repository, with how to push unless that is to the task's branch."""
    known, push = work.repository, work.push
    if known is None:
        return None
    body: RepositoryRequest = {"url": known.clone_url, "base": known.default_branch, "branch": work.branch_name}
    if push and push.ref.startswith(FOR):
        body |= {"push_to": push.ref, "push_options": list(push.options)}
        if push.fetch:
            body["fetch_from"] = push.fetch
    return body
