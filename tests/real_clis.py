"""The real Codex and Claude Code, installed once into a cache outside the repository, and scripted models for them."""

import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import pytest

from tests.summary import LACKED, had, lacks

# Said exactly: for an older Node npm would choose an older Claude Code in silence.
CODEX, CLAUDE = "0.169.0", "2.1.330"
PACKAGES = (f"@openai/codex@{CODEX}", f"@anthropic-ai/claude-code@{CLAUDE}")
BOTH = "Codex and Claude Code"
REQUIRED = "FLEET_REQUIRE_CLIS"
MODELS = Path(__file__).parent / "fakes" / "mock_models.py"
INSTALL_SECS = 100


def bin_folder() -> Path:
    """Where both programs are; installed if they are not, by one process at a time. Where npm cannot it skips, or fails
    where FLEET_REQUIRE_CLIS=1, and the summary of the tests says either."""
    kept = cache() / "clis"
    folder = kept / f"codex-{CODEX}-claude-{CLAUDE}"
    programs = folder / "node_modules" / ".bin"
    try:
        kept.mkdir(parents=True, exist_ok=True)
        with (kept / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (folder / "whole").exists():
                _install(folder)
    except OSError as why:
        _lacks(f"they cannot be kept in {kept}: {why}")
    codex, claude = (_version(programs / name) for name in ("codex", "claude"))
    had(BOTH, f"Codex {codex} and Claude Code {claude} were tested")
    return programs


def for_everybody(programs: Path, folder: Path) -> Path:
    """The same programs, in a folder below `folder` where others than root may run them, too: root's home is its own."""
    if os.geteuid() != 0:
        return programs
    shutil.copytree(programs.parent, folder / "node_modules", symlinks=True, copy_function=_link)
    return folder / "node_modules" / programs.name


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # on another disk
        shutil.copy2(source, target)


def _lacks(why: str) -> NoReturn:
    if os.environ.get(REQUIRED) == "1":
        had(BOTH, f"{LACKED}{BOTH}: {why}")
        pytest.fail(f"{why}, and {REQUIRED}=1 wants them")
    lacks(BOTH, why)


def cache() -> Path:
    """What tests fetch once for this machine and keep outside the repository."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "agent-fleet"


def _install(folder: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        _lacks("npm is not installed")
    argv = [npm, "install", "--no-audit", "--no-fund", "--loglevel=error", "--prefix", str(folder), *PACKAGES]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=INSTALL_SECS, check=False)
    except subprocess.TimeoutExpired:
        _lacks(f"npm did not install them within {INSTALL_SECS} s")
    if done.returncode:
        _lacks(f"npm cannot install them: {done.stderr.strip()[-300:]}")
    (folder / "whole").touch()


def _version(program: Path) -> str:
    """The number in its answer: `codex-cli 0.169.0`, `2.1.330 (Claude Code)`."""
    ran = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    found = re.search(r"\d+(\.\d+)+", ran.stdout)
    if ran.returncode or not found:
        _lacks(f"{program.name} does not run on this machine: {ran.stderr[-300:]}")
    return found.group()


@contextmanager
def models(scenarios: dict[str, Any]) -> Iterator[str]:
    """The scripted models as a process of their own; its address."""
    with tempfile.TemporaryDirectory(prefix="models-") as folder:
        script = Path(folder) / "scenarios.json"
        script.write_text(json.dumps(scenarios))
        argv = [sys.executable, str(MODELS), "--port", "0", "--scenarios", str(script)]
        with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            try:
                yield process.stderr.readline().strip().removeprefix("listening on ")
            finally:
                process.kill()


KEYS = {"codex": "key-of-codex-in-the-test", "claude": "key-of-claude-in-the-test"}


def furnish(home: Path, programs: Path) -> None:
    """Make a home on a host one in which both programs are set up: found by the profile of a login alone, as version
    managers have it, and with nothing of this machine's own."""
    (home / ".profile").write_text(f'PATH="{programs}:$PATH"\n')
    (home / ".codex").mkdir()
    (home / ".codex" / "config.toml").write_text(
        'model = "gpt-5.5"\nmodel_provider = "mock"\n'
        '[model_providers.mock]\nname = "mock"\nbase_url = "http://127.0.0.1:9/v1"\nenv_key = "MOCK_KEY"\nwire_api = "responses"\n'
        "request_max_retries = 0\nstream_max_retries = 0\n"
    )
    for place in _places(home).values():
        Path(place).mkdir(parents=True, mode=0o700)


def codex(home: Path, address: str, scenario: str, **given: Any) -> dict[str, Any]:
    """A declared CLI: the preset, with models of ours."""
    url = f'model_providers.mock.base_url="{address}/{scenario}/v1"'
    flags = [{"argv": ["-c", "analytics.enabled=false", "-c", url]}]
    return {"preset": "codex", "flags": flags, "env": _places(home) | {"MOCK_KEY": KEYS["codex"]}} | given


def claude(home: Path, address: str, scenario: str, **given: Any) -> dict[str, Any]:
    env = {
        "CLAUDE_CODE_OAUTH_TOKEN": KEYS["claude"], "CLAUDE_CODE_MAX_RETRIES": "0",
        "ANTHROPIC_BASE_URL": f"{address}/{scenario}",
    }  # fmt: skip
    flags = [{"argv": ["--allowedTools", "Bash"]}]
    return {"preset": "claude", "flags": flags, "env": _places(home) | env} | given


PRESETS = {"codex": codex, "claude": claude}


def _places(home: Path) -> dict[str, str]:
    """Where they may leave what they leave lying, so that nothing of it is anywhere else."""
    return {name: str(home / name.lower()) for name in ("TMPDIR", "XDG_RUNTIME_DIR", "CLAUDE_CODE_TMPDIR")}
