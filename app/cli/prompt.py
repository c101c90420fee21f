"""`fleet prompt`: prints the prompt of a task's next run."""

import click

from app.cli.connect import open_fleet
from app.cli.output import json_option, print_json
from app.services.dispatch import prompts
from app.store import tasks, views


@click.command()
@click.argument("task_id")
@json_option
def prompt(task_id: str, json_: bool) -> None:
    """Print the prompt of a task's next run.

    It is made from the issue, or from the review comments that are not answered yet.
    """
    with open_fleet().engine.begin() as conn:
        task = tasks.find(conn, task_id)
        brief = views.brief(conn, task.id)
        session, text = prompts.prompt_of(conn, task, brief)
    if json_:
        return print_json({
            "task_id": task.task_id, "session": session, "text": text, "prompt_sha256": brief["prompt_sha256"],
            "hidden": brief["prompt"].get("hidden", []),
        })  # fmt: skip
    click.echo(text)
