"""What the agent is called by, and one sentence for each thing that is wrong with that."""

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
from app.config.fleet_toml import read_toml
from app.config.settings import ConfigError
from app.domain.errors import Refused
from workers.agent.agent import Agent, Settings
from workers.agent.state_dir import Folder

TOKENS = ("FLEET_ENROLL_TOKEN", "FLEET_FORGE_TOKEN")


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--server", required=True, help="The fleet's address, as in https://fleet.example.org.")
@click.option("--capability", "capabilities", multiple=True, help="What this machine can do; say it for each.")
@click.option("--cli", required=True, help="The CLI that does the work: codex, or one of --clis.")
@click.option("--slots", type=click.IntRange(1, 1000), default=1, show_default=True, help="Tasks at the same time.")
@click.option("--agent-id", help="This agent's name; one is made up and kept where none is given.")
@click.option("--state", type=click.Path(path_type=Path), help="The folder of the agent's state.")
@click.option("--clis", type=click.Path(path_type=Path), help="A fleet.toml whose [clis] and [prices] count here.")
def agent(**given: Any) -> None:
    """Run an agent that pulls work to this machine.

    The enrolment token comes from FLEET_ENROLL_TOKEN or the file FLEET_ENROLL_TOKEN_FILE, the token for fetching and
    pushing (if the repositories need one) from FLEET_FORGE_TOKEN or FLEET_FORGE_TOKEN_FILE. SIGTERM once: finish what
    there is and leave. Twice: stop at once.
    """
    settings = _checked(os.environ, **given)
    folder = Folder(settings.folder)
    folder.open()
    one = Agent(settings, folder)
    code = one.live()
    if one.why:
        click.echo(f"fleet agent: {one.why}", err=True)
    sys.stderr.flush()
    os._exit(code)  # threads that wait for the network are not waited for


def _checked(
    environ: Mapping[str, str], server: str, capabilities: tuple[str, ...], cli: str, slots: int,
    agent_id: str | None, state: Path | None, clis: Path | None,
) -> Settings:  # fmt: skip
    """The settings; raises Wrong with all that is not right."""
    faults: list[str] = []
    secrets = {name: _secret(environ, name, faults) for name in TOKENS}
    if shutil.which("git") is None:
        faults.append("git is missing on this machine: install it.")
    template = _template(cli, clis, faults)
    settings = Settings(
        server=_address(server, faults), capabilities=capabilities, cli=cli, template=template, slots=slots,
        agent_id=agent_id, folder=(state or _default_state(environ)).expanduser().absolute(),
        hostname=socket.gethostname(), look_secs=_look_secs(environ, faults),
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
        faults.append(f"--server {server!r} must be an address as in https://fleet.example.org:9090.")
    return server.rstrip("/").removesuffix("/api/v1")


def _template(cli: str, clis: Path | None, faults: list[str]) -> CliTemplate:
    """How to run the CLI, and whether it is here at all."""
    try:
        declared = read_toml(clis) if clis else {"clis": {}, "prices": {}}
        template = replace(catalog.template_of(cli, declared["clis"].get(cli)), prices=declared["prices"])
    except (ConfigError, Refused) as why:
        faults.extend(str(why).splitlines())
        return CliTemplate()
    program = template.argv[0]
    if "{" not in program and shutil.which(program) is None:
        faults.append(f"The CLI {cli!r} needs the program {program!r}, which is not on this machine's PATH.")
    return template


def _secret(environ: Mapping[str, str], name: str, faults: list[str]) -> str | None:
    """From NAME, or from the file that NAME_FILE names; never from the command line."""
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
        faults.append(f"{name} holds characters that no token has: copy it anew.")
    return token


def _look_secs(environ: Mapping[str, str], faults: list[str]) -> float:
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
