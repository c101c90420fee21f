"""Writes a fleet.toml and reads what it declares, or its faults."""

from pathlib import Path
from typing import Any

import pytest

from app.config.fleet_toml import read_toml
from app.config.settings import ConfigError

FORGE = '[forges.main]\nurl = "https://forge.example.org"\n'
HOST = '[[hosts]]\nhost_id = "a"\nhostname = "localhost"\nagents = [{agent_type = "codex"}]\n'


def declared(tmp_path: Path, toml: str) -> dict[str, Any]:
    path = tmp_path / "fleet.toml"
    path.write_text(toml)
    return read_toml(path)


def faults_of(tmp_path: Path, toml: str) -> list[str]:
    with pytest.raises(ConfigError) as wrong:
        declared(tmp_path, toml)
    prefix = f"{tmp_path / 'fleet.toml'}: "
    assert all(fault.startswith(prefix) for fault in wrong.value.faults)
    return [fault.removeprefix(prefix) for fault in wrong.value.faults]
