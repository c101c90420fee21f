"""Reads captured outputs with the parser of their CLI."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from app.clis import catalog
from app.clis.parser import Parser, Setting
from app.domain.run import Outcome, Verdict
from tests.clis.expected_outcomes import RUNS

SAMPLES = Path(__file__).parents[1] / "fixtures" / "clis"
NOW = datetime(2026, 11, 23, 20, 10, tzinfo=UTC)
EXITS = (0, 1, 2, 101, 129, 143, -15, None)
GOOD = Verdict.SUCCEEDED
JSONL = {name: told for name, told in RUNS.items() if not name.endswith(".txt")}
FAILURES = sorted(name for name, told in JSONL.items() if told.verdict != GOOD)
SUCCESSES = sorted(name for name, told in JSONL.items() if told.verdict == GOOD)


def parser_of(name: str, **setting: Any) -> Parser:
    kind = "raw" if name.endswith(".txt") else "codex-jsonl" if name.startswith("codex") else "claude-result"
    return catalog.make_parser(kind, Setting(now=NOW, **setting))


def sample(name: str) -> bytes:
    return (SAMPLES / name).read_bytes()


def stderr_of(name: str) -> bytes:
    path = (SAMPLES / name).with_suffix(".stderr")
    return path.read_bytes() if path.exists() else b""


def read(name: str, stdout: bytes, exit_code: int | None, stderr: bytes = b"", **setting: Any) -> Outcome:
    parser = parser_of(name, **setting)
    parser.feed(stdout)
    return parser.finish(exit_code, stderr)


def lines(*told: Any) -> bytes:
    return b"".join(json.dumps(event).encode() + b"\n" for event in told)


def a_result(**given: Any) -> dict[str, Any]:
    return {"type": "result", "subtype": "success", "is_error": False, "result": "Done.", "session_id": "s-1"} | given
