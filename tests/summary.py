"""Collects the last lines of the suite: the real programs that tests used, and the missing ones with the reason."""

import os
from pathlib import Path
from typing import NoReturn

import pytest

from tests import servers

LACKED = "NOT TESTED: "


def had(about: str, sentence: str) -> None:
    """Record a sentence about a program. The process that was called prints it at the end."""
    _folder().mkdir(exist_ok=True)
    (_folder() / about).write_text(sentence)


def lacks(about: str, why: str) -> NoReturn:
    """Skip the test, and let the summary name the missing program."""
    had(about, f"{LACKED}{about}: {why}")
    pytest.skip(why)


def lines() -> list[str]:
    there = servers.HOME in os.environ and _folder().is_dir()
    return [path.read_text() for path in sorted(_folder().iterdir())] if there else []


def _folder() -> Path:
    return servers.home() / "summary"
