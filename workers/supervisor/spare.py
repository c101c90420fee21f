"""Makes a worktree in advance, for the next task of a repository whose checkout takes long."""

from __future__ import annotations

import os
import signal
import time

from workers.supervisor.constants import TYPE_CHECKING
from workers.supervisor.files import Lock, delete_folder, free_disk, make_folder, used_disk, write_if_changed
from workers.supervisor.git import GIT
from workers.supervisor.isolation import isolate
from workers.supervisor.mirror import is_checked_out, link_worktree, worktree_options
from workers.supervisor.processes import reset_signals
from workers.supervisor.procfs import is_child_running
from workers.supervisor.programs import find_program

if TYPE_CHECKING:
    from typing import NoReturn

    from workers.supervisor.constants import Json
    from workers.supervisor.mirror import Mirror
    from workers.supervisor.watch import Watch


class SpareWorktree:
    """A worktree of no task. The next task takes it, and writes only the files that have changed since.

    The process that makes or takes it holds the lock.
    """

    MIN_FREE_BYTES = 4 << 30  # no spare is made below that: it is only an optimization
    MAX_WAIT_SECS = 60

    def __init__(self, mirror: Mirror, watch: Watch, limits: Json) -> None:
        self._mirror, self._watch, self._limits = mirror, watch, limits
        self.path, self.git_dir = mirror.path[: -len(".git")] + ".spare", mirror.path + "/worktrees/spare"
        self.lock = Lock(self.path + ".lock")

    def move_to(self, path: str, git_dir: str) -> bool:
        """Move it to a task's folders, after the process that makes it. Return False if there is none."""
        if not os.path.exists(self.lock.path):  # no checkout here has taken long
            return False
        with self.lock as lock:
            if not self._watch.acquire(lock, self._limits["git_secs"]) or not self._is_complete():
                return False
            try:
                os.rename(self.git_dir, git_dir)
                os.rename(self.path, path)
                return True
            except OSError:
                delete_folder(git_dir)
                return False

    def make(self, commit: str, model: str) -> None:
        """Start a process that makes one, as large as the worktree `model`. It may outlive the run."""
        pid = os.fork()
        if pid == 0:
            self._make(commit, model)
        self._watch.excluded.append(pid)

    def wait(self) -> None:
        """Wait until the process that this one started has made it, for at most 60 s."""
        until = time.monotonic() + self.MAX_WAIT_SECS
        while (
            any(map(is_child_running, self._watch.excluded))
            and not self._watch.stop_reason
            and time.monotonic() < until
        ):
            self._watch.wait(0.05)

    def delete_if_last(self) -> None:
        """Delete it if no task on this host has a worktree of its repository."""
        with self.lock as lock:
            if not os.path.exists(lock.path) or not lock.acquire():
                return
            worktrees = self._mirror.path + "/worktrees"
            if not os.path.isdir(worktrees) or os.listdir(worktrees) in ([], ["spare"]):
                self._delete()

    def _is_complete(self) -> bool:
        return is_checked_out(self.path, self.git_dir)

    def _make(self, commit: str, model: str) -> NoReturn:
        """Make it in this process. Git holds the lock, too, in case this process dies first."""
        try:
            signal.set_wakeup_fd(-1)
            os.closerange(3, 4096)  # the locks of the run
            reset_signals()
            os.setsid()
            os.nice(5)
            signal.alarm(int(self._limits["git_secs"]))
            lock = Lock(self.lock.path)
            if lock.acquire() and not self._is_complete():
                self._delete()
                if free_disk({"home": model}) - used_disk(model) > self.MIN_FREE_BYTES:
                    lock.share_with_children()
                    self._check_out(commit)
        except OSError:  # then there is no spare
            pass
        finally:
            os._exit(0)

    def _check_out(self, commit: str) -> None:
        make_folder(self.git_dir)
        make_folder(self.path)
        write_if_changed(self.git_dir + "/HEAD", f"{commit}\n".encode())
        link_worktree(self.path, self.git_dir)
        words = ("checkout", "--quiet", "--force", "--detach", commit)
        env = self._mirror.environment(secret=False)
        isolate()
        argv = [*GIT, *worktree_options(self.path, self.git_dir), *words]
        if os.spawnve(os.P_WAIT, find_program("git", env["PATH"]), argv, env):
            self._delete()

    def _delete(self) -> None:
        delete_folder(self.git_dir)
        delete_folder(self.path)
