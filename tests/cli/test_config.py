"""`fleet config`: what is in force by the environment and by fleet.toml, and no secret."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from app.cli import config

TOML = """
[forges.main]
url = "https://forge.example.org"
token_env = "OUR_TOKEN"

[[repositories]]
forge = "main"
name = "team/*"

[[hosts]]
host_id = "build-1"
hostname = "build-1.example.org"
agents = [{ agent_type = "codex" }]
"""


def test_config_shows_what_fleet_toml_declares_and_which_secrets_are_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "fleet.toml").write_text(TOML)
    given = {"FLEET_CONFIG": str(tmp_path / "fleet.toml"), "FLEET_HOME": str(tmp_path), "OUR_TOKEN": "hush-hush"}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    shown = CliRunner().invoke(config.config, ["--json"], catch_exceptions=False).output
    assert '"forge main": "https://forge.example.org"' in shown
    assert '"forge main token": "***"' in shown and '"forge main webhook_secret": null' in shown
    assert '"main team/*"' in shown and '"build-1"' in shown
    assert "hush-hush" not in shown
