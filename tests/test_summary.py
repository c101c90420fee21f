"""The suite's last lines: a real program that is lacking is named there."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).parents[1]


@pytest.mark.parametrize("required", ["", "1"], ids=["and is good all the same", "and fails where they are required"])
def test_a_suite_without_the_real_clis_says_so_at_its_end(tmp_path: Path, required: str) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for folder in map(Path, os.environ["PATH"].split(os.pathsep)):
        for path in folder.iterdir() if os.access(folder, os.R_OK | os.X_OK) else ():
            if path.name != "npm" and not (programs / path.name).is_symlink():
                (programs / path.name).symlink_to(path)
    own = {"PATH": str(programs), "XDG_CACHE_HOME": str(tmp_path), "FLEET_TEST_SSHD": "asyncssh", "CI": "true"}
    own["FLEET_REQUIRE_CLIS"] = required
    argv = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "tests/workers/test_real_clis.py",
        "-k",
        "signal",
    ]
    done = subprocess.run(argv, cwd=TOP, env=os.environ | own, capture_output=True, text=True, check=False)
    assert done.returncode == (1 if required else 0), done.stdout
    assert "NOT TESTED: Codex and Claude Code: npm is not installed" in done.stdout.splitlines()
