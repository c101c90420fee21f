"""`fleet clis`, as people and programs call it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from sqlalchemy import Engine

from app.cli import clis as program
from app.clis import catalog
from app.config.fleet_toml import read_toml
from app.domain.errors import Refused
from app.store import fleet_config
from tests import servers

TOP = Path(__file__).parents[2]
SAMPLES = TOP / "tests" / "fixtures" / "clis"
FIELDS = {"verdict", "final_text", "session_id", "usage", "failure", "resets_at", "denied_actions"}
COUNTERS = {"input_tokens", "cached_tokens", "output_tokens", "cost_usd"}


def run(*words: str, stdin: bytes = b"", **environ: str) -> tuple[int, str]:
    """The program in this process: its exit code, and what it said."""
    env = {"FLEET_HOME": "/nonexistent", "DATABASE_URL": None, "REDIS_URL": None, "FLEET_CONFIG": None} | environ
    done = CliRunner().invoke(program.clis, words, input=stdin, env=env)
    told = str(done.exception) if isinstance(done.exception, Refused) else done.output
    assert done.exception is None or isinstance(done.exception, (Refused, SystemExit)), done.exception
    return done.exit_code, told


def answer(*words: str, **given: Any) -> Any:
    code, told = run(*words, **given)
    assert code == 0, told
    return json.loads(told)


def test_fleet_clis_hands_over_to_it() -> None:
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(TOP), "FLEET_HOME": "/nonexistent"}
    argv = [sys.executable, "-m", "app.cli", "clis", "parse", "codex", "-", "--exit-code", "0"]
    stdin = (SAMPLES / "codex-say.jsonl").read_bytes()
    done = subprocess.run(argv, input=stdin, env=env, capture_output=True, check=True)
    assert json.loads(done.stdout)["verdict"] == "succeeded"


def test_parse_prints_the_outcome_and_nothing_else() -> None:
    told = answer(
        "parse", "codex", "--exit-code", "1", str(SAMPLES / "codex-usage-limit.jsonl"), "--now", "2026-11-23T20:10:00Z"
    )
    assert set(told) == FIELDS and set(told["usage"]) == COUNTERS
    assert (told["verdict"], told["failure"], told["resets_at"]) == ("limited", "usage_limit", "2026-11-23T21:07:00Z")


def test_parse_reads_standard_input_takes_a_parsers_name_and_a_session_before() -> None:
    stdin = (SAMPLES / "codex-resume.jsonl").read_bytes()
    told = answer("parse", "codex-jsonl", "-", "--exit-code", "0", "--before", '{"input_tokens": 1200}', stdin=stdin)
    assert (told["verdict"], told["usage"]["input_tokens"]) == ("succeeded", 2400)
    gemini = b'{"response": "Hello.", "stats": {"models": {"m": {"tokens": {"prompt": 7}}}}}'
    told = answer("parse", "gemini", "-", "--exit-code", "0", stdin=gemini)
    assert (told["verdict"], told["usage"]["input_tokens"]) == ("succeeded", 7)
    stderr = str(SAMPLES / "codex-no-git.stderr")
    assert answer("parse", "codex", "-", "--exit-code", "1", "--stderr", stderr)["failure"] == "no_repository"


@pytest.mark.parametrize(
    "words",
    [("parse", "nobody", "-", "--exit-code", "0"), ("parse", "codex", "-", "--exit-code", "0", "--now", "noon"),
     ("parse", "codex", "/nonexistent/x", "--exit-code", "0"), ("show", "nobody"), ("parse", "codex", "-"),
     ("parse", "codex", "-", "--exit-code", "x")],
)  # fmt: skip
def test_what_cannot_be_done_is_a_sentence(words: tuple[str, ...]) -> None:
    code, told = run(*words)
    assert code != 0 and told


def test_list_names_every_preset_without_a_database() -> None:
    assert {row["name"] for row in answer("list", "--json")} == set(catalog.presets())
    assert "claude-result" in run("list")[1]


def test_show_prints_words_and_no_shell_line() -> None:
    new, old = answer("show", "claude", "--version", "2.1.330"), answer("show", "claude", "--version", "2.1.197")
    assert new["argv"][-2:] == ["--permission-prompts", "none"] and "--permission-prompts" not in old["argv"]
    assert answer("show", "codex", "--resume", "t-1")["argv"][-3:] == ["--json", "t-1", "-"]


def test_show_knows_what_fleet_toml_declares(engine: Engine, database: str, tmp_path: Path) -> None:
    toml = tmp_path / "fleet.toml"
    toml.write_text("""
[clis.mine]
preset = "claude"
model = "opus"
[[hosts]]
host_id = "h"
hostname = "localhost"
agents = [{ agent_type = "mine" }]
clis = { mine = { env = { A = "1" } } }
""")
    environ = servers.config(DATABASE_URL=database, REDIS_URL="redis://127.0.0.1:1/0")
    with engine.begin() as conn:
        fleet_config.apply(conn, read_toml(toml))
    told = answer("show", "mine", "--host", "h", **environ)
    assert told["argv"][-2:] == ["--model", "opus"] and told["env"]["A"] == "1"
    assert "mine" in {row["name"] for row in answer("list", "--json", **environ)}
