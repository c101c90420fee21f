"""Describes the previous runs of a task for the prompt of a fresh session."""

from collections.abc import Mapping, Sequence
from typing import Any

from app.domain.forge_messages import fenced
from app.domain.visible_text import one_line

MOST_RUNS, MOST_FILES, LONGEST_SUMMARY = 5, 20, 1500


def write(before: Sequence[Mapping[str, Any]]) -> str:
    """The section of the prompt about the newest runs that were started, or an empty string.

    Texts of other runs are fenced: they inform and do not instruct.
    """
    started = [run for run in before if run["started_at"]][-MOST_RUNS:]
    if not started:
        return ""
    return "\n".join([_HEAD, *(_describe_run(run) for run in started)])


_HEAD = """
## What was done before

Others worked on this before you, in this very folder and branch. Their sessions are not yours; look at `git log` and at
the files before you change anything, and go on from there."""


def _describe_run(run: Mapping[str, Any]) -> str:
    files = [one_line(str(path), 200) for path in ((run.get("progress") or {}).get("files") or [])[:MOST_FILES]]
    lines = [f"\nRun {run['number']} ({one_line(str(run['cli']), 100)}) ended: {one_line(str(run['end']), 100)}."]
    lines += [f"Commits: {', '.join(str(sha)[:12] for sha in run['commits'][:10])}"] if run["commits"] else []
    lines += ["Files it touched:", fenced("\n".join(files))] if files else []
    lines += ["What it said at its end:", fenced(run["summary"], longest=LONGEST_SUMMARY)] if run["summary"] else []
    return "\n".join(lines)
