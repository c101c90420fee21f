"""`fleet prompt`: what the next run of a task will be told."""

import click

from app import wiring
from app.cli.output import as_json
from app.services.dispatch import prompts
from app.store import tasks, views


@click.command()
@click.argument("task_id")
@click.option("--json", "json_", is_flag=True, help="For programs.")
def prompt(task_id: str, json_: bool) -> None:
    """The prompt of a task, as a CLI reads it now: the issue, or the review that was not answered yet."""
    with wiring.fleet(connections=1).engine.begin() as conn:
        task = tasks.find(conn, task_id)
        brief = views.brief(conn, task.id)
        session, text = prompts.prompt_of(conn, task, brief)
    if json_:
        return as_json({
            "task_id": task.task_id, "session": session, "text": text, "prompt_sha256": brief["prompt_sha256"],
            "hidden": brief["prompt"].get("hidden", []),
        })  # fmt: skip
    click.echo(text)
