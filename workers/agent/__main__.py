"""Command line of `fleet agent`; reports every invalid option at once."""

import os
import shutil
import socket
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click

from app.clis import catalog
from app.clis.template import CliTemplate
from app.config.settings import ConfigError
from app.domain.errors import Refused
from workers.agent.agent import Agent, Settings
from workers.agent.state_dir import StateDir

Declared = dict[str, Any]  # fleet.toml, with defaults filled in
TOKENS = ("FLEET_ENROLL_TOKEN", "FLEET_FORGE_TOKEN")


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--server", required=True, help="Address of the fleet, such as https://fleet.example.org.")
@click.option("--capability", "capabilities", multiple=True, help="What this machine can do; repeat for each.")
@click.option("--cli", required=True, help="CLI that does the work: codex, or one of --clis.")
@click.option(
    "--slots", type=click.IntRange(1, 1000), default=1, show_default=True, help="Most tasks at the same time."
)
@click.option("--agent-id", help="Name of this agent; generated and kept by default.")
@click.option("--state", type=click.Path(path_type=Path), help="Directory of the agent's state.")
@click.option("--clis", type=click.Path(path_type=Path), help="A fleet.toml with [clis] and [prices] to use here.")
def agent(**given: Any) -> None:
    """Run an agent that pulls work to this machine.

    The enrolment token is read from FLEET_ENROLL_TOKEN, or from the file named by FLEET_ENROLL_TOKEN_FILE. The token
    for fetching and pushing is read from FLEET_FORGE_TOKEN or FLEET_FORGE_TOKEN_FILE, if the repositories need one.

    The first SIGTERM drains: held tasks are finished. The second one stops at once.
    """
    settings = _read_settings(os.environ, **given)
    state = StateDir(settings.state)
    state.open()
    one = Agent(settings, state)
    code = one.run()
    if one.why:
        click.echo(f"fleet agent: {one.why}", err=True)
    sys.stderr.flush()
    os._exit(code)  # does not wait for threads that wait for the network


def _read_settings(
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


def main() -> None:
    try:
        agent(prog_name="fleet agent", standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except ConfigError as wrong:
        for fault in wrong.faults:
            click.echo(f"fleet agent: {fault}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
