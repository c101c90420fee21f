"""Reads the agent's settings from its options and environment; reports every fault at once."""

import os
import shutil
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from app.clis import catalog
from app.clis.template import CliTemplate
from app.config.settings import ConfigError
from app.domain.errors import Refused

Declared = dict[str, Any]  # fleet.toml, with defaults filled in
TOKENS = ("FLEET_ENROLL_TOKEN", "FLEET_FORGE_TOKEN")


@dataclass(frozen=True)
class Settings:
    """The checked command line and environment of the agent."""

    server: str
    capabilities: tuple[str, ...]
    cli: str
    template: CliTemplate
    slots: int
    agent_id: str | None
    state: Path
    hostname: str
    poll_secs: float  # between two polls of the local runs
    enrol_token: str | None = field(repr=False)
    forge_token: str | None = field(repr=False)


def read(
    environ: Mapping[str, str], server: str, capabilities: tuple[str, ...], cli: str, slots: int,
    agent_id: str | None, state: Path | None, clis: Path | None,
) -> Settings:  # fmt: skip
    """Raises ConfigError with every fault."""
    faults: list[str] = []
    secrets = {name: _secret(environ, name, faults) for name in TOKENS}
    if shutil.which("git") is None:
        faults.append("git is missing on this machine: install it.")
    template = _template(cli, clis, faults)
    settings = Settings(
        server=_address(server, faults), capabilities=capabilities, cli=cli, template=template, slots=slots,
        agent_id=agent_id, state=(state or _default_state(environ)).expanduser().absolute(),
        hostname=socket.gethostname(), poll_secs=_poll_secs(environ, faults),
        enrol_token=secrets["FLEET_ENROLL_TOKEN"], forge_token=secrets["FLEET_FORGE_TOKEN"],
    )  # fmt: skip
    if faults:
        raise ConfigError(faults)
    return settings


def _address(server: str, faults: list[str]) -> str:
    try:
        parts = urlsplit(server)
        fits = parts.scheme in ("http", "https") and parts.hostname and (parts.port or True)
    except ValueError:
        fits = False
    if not fits or parts.query or parts.fragment or parts.username:
        faults.append(f"--server {server!r} must be an address such as https://fleet.example.org:9090.")
    return server.rstrip("/").removesuffix("/api/v1")


def _template(cli: str, clis: Path | None, faults: list[str]) -> CliTemplate:
    """How to run the CLI; a fault if its program is not on this machine."""
    try:
        declared = _read_clis(clis) if clis else {"clis": {}, "prices": {}}
        template = replace(catalog.template_of(cli, declared["clis"].get(cli)), prices=declared["prices"])
    except (ConfigError, Refused) as why:
        faults.extend(str(why).splitlines())
        return CliTemplate()
    program = template.argv[0]
    if "{" not in program and shutil.which(program) is None:
        faults.append(f"The CLI {cli!r} needs the program {program!r}, which is not on this machine's PATH.")
    return template


def _read_clis(path: Path) -> Declared:
    from app.config.fleet_toml import read_toml  # noqa: PLC0415 - marshmallow takes 5 MB that few agents need

    return read_toml(path)


def _secret(environ: Mapping[str, str], name: str, faults: list[str]) -> str | None:
    """The value of NAME, or of the file that NAME_FILE names. Never from the command line, which others can see."""
    file = environ.get(f"{name}_FILE")
    if not file:
        return _printable(name, environ.get(name) or None, faults)
    try:
        found = Path(file).read_text().strip()
    except (OSError, UnicodeDecodeError):
        found = ""
    if not found:
        faults.append(f"{name}_FILE names {file}, which cannot be read or is empty.")
    return _printable(name, found or None, faults)


def _printable(name: str, token: str | None, faults: list[str]) -> str | None:
    if token is not None and not (token.isascii() and token.isprintable()):
        faults.append(f"{name} has characters that no token has: copy it again.")
    return token


def _poll_secs(environ: Mapping[str, str], faults: list[str]) -> float:
    given = environ.get("FLEET_LOOK_SECS") or "1"
    try:
        if 0.1 <= float(given) <= 60:
            return float(given)
    except ValueError:
        pass
    faults.append(f"FLEET_LOOK_SECS={given!r} must be a number from 0.1 to 60.")
    return 1.0


def _default_state(environ: Mapping[str, str]) -> Path:
    if os.geteuid() == 0:
        return Path("/var/lib/fleet-agent")
    return Path(environ.get("XDG_STATE_HOME") or "~/.local/state") / "fleet-agent"
