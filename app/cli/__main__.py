"""The commands, and the one place where an error becomes a sentence and an exit code."""

import sys

import click
from sqlalchemy.exc import OperationalError

from app.cli import (
    agent,
    agents,
    bench,
    clis,
    deliveries,
    demo,
    docs,
    forge,
    hosts,
    logs,
    prompt,
    receipt,
    settings,
    tasks,
    test,
    up,
)  # fmt: skip
from app.config import Wrong
from app.domain.errors import Refused


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def fleet() -> None:
    """agent-fleet: Forgejo issues in, merged pull requests out."""


for command in (
    up.up, demo.demo, test.test, bench.bench, settings.apply, settings.config, settings.migrate,
    tasks.task, tasks.why, tasks.replay, agent.agent, agents.agents, agents.enroll, hosts.hosts, logs.logs, docs.docs,
    clis.clis, deliveries.deliveries, forge.forge, forge.doctor, prompt.prompt, receipt.receipt,
):  # fmt: skip
    fleet.add_command(command)


def main() -> None:
    try:
        fleet(standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (Wrong, Refused) as error:
        _stop(str(error))
    except OperationalError as error:
        why = str(error.orig).strip().splitlines()[0]
        _stop(f"The database does not answer ({why}). Start the fleet with `fleet up`, or set DATABASE_URL.")


def _stop(sentence: str) -> None:
    for line in sentence.splitlines():
        click.echo(f"fleet: {line}", err=True)
    sys.exit(1)


if __name__ == "__main__":
    main()
