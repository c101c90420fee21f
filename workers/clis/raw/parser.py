"""Reads any CLI: the last lines are its final text, and only its exit code speaks of success."""

from app.domain.run import Outcome, Verdict

NAME = "raw"
LONGEST = 4000


def parse(stdout: bytes, exit_code: int | None) -> Outcome:
    """An exit code of 0 is not yet a delivery: the work itself is judged later."""
    text = stdout[-LONGEST:].decode(errors="replace").strip()
    if exit_code is None:
        return Outcome(Verdict.KILLED, text)
    return Outcome(
        Verdict.SUCCEEDED if exit_code == 0 else Verdict.FAILED,
        text,
        failure=None if exit_code == 0 else "cli_failed",
    )
