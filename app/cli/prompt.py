"""`fleet prompt`: prints the prompt of a task's next run."""

import click

from app.cli.connect import open_fleet
from app.cli.output import json_option, print_json
from app.services.dispatch import prompts
from app.store import task_details, tasks


@click.command()
@click.argument("task_id")
@json_option
def prompt(task_id: str, json_: bool) -> None:
    """Print the prompt of a task's next run.

    It is made from the issue, or from the review comments that are not answered yet.
    """
    with open_fleet().engine.begin() as conn:
        task = tasks.find(conn, task_id)
        details = task_details.get(conn, task.id)
        session, text = prompts.prompt_of(conn, task, details)
    if json_:
        return print_json({
            "task_id": task.task_id, "session": session, "text": text, "prompt_sha256": details.prompt.hash,
            "hidden": list(details.prompt.hidden),
        })  # fmt: skip
    click.echo(text)
