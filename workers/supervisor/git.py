"""Runs git processes with a fixed configuration, a deadline, and the forge's password where it is needed."""

from __future__ import annotations

import os
import time

from workers.supervisor.askpass import Credentials
from workers.supervisor.constants import TYPE_CHECKING
from workers.supervisor.errors import RunEnded
from workers.supervisor.processes import Child
from workers.supervisor.programs import base_environment, trusted_path

if TYPE_CHECKING:
    from workers.supervisor.constants import Json
    from workers.supervisor.run import Run
    from workers.supervisor.watch import StopCheck, Watch

# The agent can write to the mirror, its home and its worktree. These settings win over anything written there.
# Checkouts of many files use several processes.
GIT = ("git", "-c", "core.hooksPath=/dev/null", "-c", "credential.helper=", "-c", "core.fsmonitor=false",
       "-c", "checkout.workers=4", "-c", "checkout.thresholdForParallelism=1000")  # fmt: skip
GIT_ENVIRONMENT = {
    "HOME": "/dev/null", "LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0", "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_ATTR_NOSYSTEM": "1", "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_LFS_SKIP_SMUDGE": "1",  # a checkout has no password: large files are fetched after it
}  # fmt: skip
GIT_PASSED_ON = ("http_proxy", "https_proxy", "no_proxy", "all_proxy", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY",
                 "GIT_SSL_CAINFO", "SSL_CERT_FILE", "SSH_AUTH_SOCK")  # fmt: skip
GIT_END_REASONS = {"cancelled": "the run was cancelled", "failed": "it was still running after {git_secs} s"}


class Git:
    """Runs git for one run."""

    def __init__(self, request: Json, run: Run, watch: Watch, limits: Json) -> None:
        self.watch, self.limits = watch, limits
        self.search_path = trusted_path(base_environment()["PATH"], "git", "git-lfs")
        self._credentials = Credentials(request, run)

    def environment(self, repository: str, secret: bool) -> dict[str, str]:
        """Return the environment of a git process on a bare repository, able to ask for the password if `secret`."""
        env = {**base_environment(), **GIT_ENVIRONMENT, "GIT_COMMON_DIR": repository, "PATH": self.search_path}
        env.update({name: os.environ[name] for name in GIT_PASSED_ON if name in os.environ})
        return {**env, **(self._credentials.environment() if secret else {})}

    def run(
        self,
        where: tuple[str, ...],
        words: tuple[str, ...],
        cwd: str,
        env: dict[str, str],
        isolated: bool,
        patience: float,
    ) -> tuple[int | None, str, str]:
        """Run git. Return exit code, standard output and standard error, with the password masked.

        `where` are the options before the command, `words` the command and what follows. `patience` is how many seconds
        it may go on after a cancel. Raises RunEnded if it was cancelled, took too long or could not be started.
        """
        (out, out_end), (errors, errors_end) = os.pipe(), os.pipe()
        files = [os.open(os.devnull, os.O_RDONLY), out_end, errors_end]
        if "GIT_ASKPASS" in env:
            files.append(self._credentials.open())
        child = Child([*GIT, *where, *words], env, cwd, files, isolated)
        try:
            child.start()
        except OSError as error:
            raise RunEnded("failed", f"this host could not start git ({error.strerror}): install it") from None
        reason, output = self.watch.read_output(child, [out, errors], self._stop_check(patience))
        if reason:
            raise RunEnded(reason, f"git {words[0]} was ended: {GIT_END_REASONS[reason].format(**self.limits)}")
        texts = [self._credentials.mask(text.decode("utf-8", "replace")) for text in output]
        return child.exit_code if child.signal is None else 128 + child.signal, texts[0], texts[1]

    def _stop_check(self, patience: float) -> StopCheck:
        until = time.monotonic() + self.limits["git_secs"]

        def check() -> str | None:
            now = time.monotonic()
            if self.watch.stop_reason and now > self.watch.stopped_at + patience:
                return "cancelled"
            return "failed" if now > until else None

        return check
