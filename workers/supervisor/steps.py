"""Takes a run through its steps, prepare, agent, validate and deliver, and writes how it ended."""

from __future__ import annotations

import os
import sys
import time

from workers.supervisor.agent import run_agent
from workers.supervisor.checkout import collect_garbage, finish_workspace, prepare_workspace
from workers.supervisor.checks import run_hooks, run_validation
from workers.supervisor.commit import commit_all
from workers.supervisor.constants import END_REASONS, NO_SPACE, STEPS, TYPE_CHECKING, WAIT_SECS
from workers.supervisor.deliver import push_branch
from workers.supervisor.errors import BranchMoved, RunEnded
from workers.supervisor.execution import Execution
from workers.supervisor.files import Lock, make_folder, remove_file
from workers.supervisor.isolation import become_subreaper, forbid_inspection
from workers.supervisor.scope import enter_scope
from workers.supervisor.sync import merge_remote, return_to_branch
from workers.supervisor.worktree import Worktree, workspace_lock

if TYPE_CHECKING:
    from workers.supervisor.constants import Json
    from workers.supervisor.run import Run

NESTED = "{} was left out: it is a git repository of its own. Make it a submodule, or delete its .git folder"


class Supervisor:
    """The process that works on one run."""

    def __init__(self, run: Run, request: Json) -> None:
        self.job = Execution(run, request)
        self._workspace_lock = Lock(workspace_lock(request))
        actions = (self._prepare, self._agent, self._validate, self._deliver)
        self._actions = dict(zip(STEPS, actions))

    def begin(self) -> None:
        """Write the first state.json: from here on the run is known to have begun."""
        self.job.run.write("state.json", self.job.state)

    def supervise(self) -> None:
        """Take all steps and write result.json, whatever happens."""
        job = self.job
        forbid_inspection()
        become_subreaper()
        try:
            job.state["cgroup"] = enter_scope(job.watch, f"fleet-{job.run.id}.scope")
            for step in STEPS:
                self._take_step(step)
            finish_workspace(job.workspace)
            job.watch.raise_if_cancelled()  # too late to stop the push: the result has `pushed`
        except RunEnded as error:
            job.result.update(end=error.end, reason=str(error), failure=error.failure)
        except Exception as error:  # also a bug ends a run with a result
            self._note_crash(error)
        self._write_result()
        collect_garbage(job.workspace)

    def _note_crash(self, error: Exception) -> None:
        sys.excepthook(*sys.exc_info())  # to supervisor.log
        result = self.job.result
        result.update(end="failed", reason=f"step {self.job.state['step']} failed on this host: {error}")
        if isinstance(error, OSError) and error.errno in NO_SPACE:
            result["failure"] = "disk_full"

    def _write_result(self) -> None:
        job = self.job
        if job.result["end"] == "cancelled" and not job.run.read("cancel.json"):
            job.result.update(end="lost", reason=END_REASONS["lost"])
        uses_lfs = isinstance(job.workspace, Worktree) and job.workspace.uses_lfs
        job.result.update(survivors=job.watch.survivors, lfs=uses_lfs)
        remove_file(job.run.file("reserve"))
        job.run.write("result.json", {**job.result, "ended_at": time.time()}, durable=True)
        self._workspace_lock.release()
        job.run.unlock()

    def _take_step(self, step: str) -> None:
        """Take one step, between its hooks, and note its duration and success in the result."""
        job = self.job
        job.state["step"] = job.result["step"] = step
        began, note = time.monotonic(), {"name": step, "seconds": 0.0, "ok": False}
        job.result["steps"].append(note)
        try:
            job.watch.raise_if_cancelled()
            if step != STEPS[0]:
                job.save_state()
            run_hooks(job, f"before_{step}")
            note["ok"] = self._actions[step]()
            run_hooks(job, f"after_{step}")
        finally:
            note["seconds"] = round(time.monotonic() - began, 4)

    def _prepare(self) -> bool:
        job, workspace = self.job, self.job.workspace
        make_folder(os.path.dirname(workspace.path))
        if not job.watch.acquire(self._workspace_lock, WAIT_SECS):
            raise RunEnded("failed", f"another run still works in {workspace.path}: end that one first")
        job.result["base"] = job.state["base"] = prepare_workspace(workspace)
        if isinstance(workspace, Worktree):
            job.result["warnings"] += workspace.warnings + workspace.untrusted_programs()
        return True

    def _agent(self) -> bool:
        run_agent(self.job)
        return True

    def _validate(self) -> bool:
        return run_validation(self.job)

    def _deliver(self) -> bool:
        wanted, tree = self.job.request.get("delivery"), self.job.workspace
        if wanted and isinstance(tree, Worktree):
            author = wanted["author_name"], wanted["author_email"]
            nested = commit_all(tree, wanted["message"], author)
            self.job.result["warnings"] += [NESTED.format(path) for path in nested]
            return_to_branch(tree)
            while not self._push(tree, author):
                self.job.watch.raise_if_cancelled()
        return True

    def _push(self, tree: Worktree, author: tuple[str, str]) -> bool:
        """Merge what others pushed, and push. Return False if someone pushed meanwhile."""
        is_merged = merge_remote(tree, author)
        self._save_head(tree)
        if is_merged:
            self._validate()  # other files than those that were validated
        try:
            self.job.result["pushed"] = push_branch(tree)
        except BranchMoved:
            return False
        return True

    def _save_head(self, tree: Worktree) -> None:
        """Write the commit before it is pushed: if this process dies while it pushes, the forge is asked for it."""
        head, base, result = tree.head(), self.job.result["base"], self.job.result
        result.update(head=head, commits=tree.commits_since(base), changed=head != base)
        self.job.state["head"] = head
        self.job.save_state()
