"""Parses any output: its last lines are the final text, and the exit code alone decides about success."""

from app.clis import failure_patterns, reset_times
from app.clis.parser import STDERR_KEPT, Progress, Setting, short, was_killed
from app.domain.failures import LIMITS
from app.domain.run import Outcome, Verdict

NAME = "raw"
KEPT = 65_536
LONGEST = 4000


class OutputParser:
    """Success is exit code 0. Whether anything was delivered is judged later."""

    NAME = NAME

    def __init__(self, setting: Setting | None = None) -> None:
        self.setting = setting or Setting()
        self.seen = Progress()
        self._end = bytearray()

    def feed(self, data: bytes) -> None:
        self._end += data[-KEPT:]
        del self._end[:-KEPT]

    def feed_session_line(self, noted: object) -> None:
        """Ignored: a CLI with this parser has no session file."""

    def progress(self) -> Progress:
        said = self._end.rstrip()
        lines = said[said.rfind(b"\n") + 1 :].decode("utf-8", "replace").splitlines()
        self.seen.message = short(lines[-1]) if lines else self.seen.message
        return self.seen

    def finish(self, exit_code: int | None, stderr: bytes = b"") -> Outcome:
        text = self._end.decode("utf-8", "replace")[-LONGEST:].strip()
        if was_killed(exit_code):
            return Outcome(Verdict.KILLED, text, failure="killed")
        if exit_code == 0:
            return Outcome(Verdict.SUCCEEDED, text)
        return self._failed(text, stderr[-STDERR_KEPT:].decode("utf-8", "replace").strip())

    def _failed(self, text: str, stderr: str) -> Outcome:
        """A failure, named by the last lines of stderr or of the output."""
        said = stderr or text
        name = failure_patterns.failure_of(said[-1000:]) or failure_patterns.failure_of(text[-1000:]) or "cli_failed"
        resets = reset_times.rfc3339(reset_times.reset_in(said[-1000:], self.setting.now)) if name in LIMITS else None
        verdict = Verdict.LIMITED if name in LIMITS else Verdict.FAILED
        return Outcome(verdict, text or said, failure=name, resets_at=resets, error=said[-LONGEST:] or None)
