"""`fleet demo`: takes one issue to a merged pull request on an own small forge, and tells each step."""

import json
import time
from collections.abc import Callable, Mapping
from typing import Any

import click

from app.cli.demo import narrator
from app.cli.demo.stage import CAPABILITY, REPOSITORY, Stage, stage
from app.cli.local.process_manager import last_lines
from app.cli.tasks import print_history
from app.config.settings import ConfigError
from app.store import views

STEP_SECS = 45.0
PAUSE_SECS = 0.05


class StepMissing(Exception):
    """A step of the demo did not happen in time. The log of `process` says why."""

    def __init__(self, expected: str, seen: str, process: str = "worker") -> None:
        super().__init__(f"expected {expected}; seen: {seen}")
        self.process = process


@click.command()
def demo() -> None:
    """Show one issue become a merged pull request.

    Starts the fleet, a small forge and a scripted coding CLI, and removes everything at the end.
    """
    say = _clocked_printer()
    with stage() as the_stage:
        say(f"The fleet runs, beside a small forge at {the_stage.forge_url}.")
        try:
            _play(the_stage, say)
        except StepMissing as missing:
            lines = last_lines(the_stage.config.home / "log" / f"{missing.process}.log")
            raise ConfigError(
                [f"The demo failed: {missing}.", f"The last lines of {missing.process}:", *lines]
            ) from missing
    say("All processes are stopped and all files are removed.")
    click.echo("\nTo look around yourself: ./fleet up --demo")


def run_for_visitors() -> None:
    """Run the demo's fleet and forge until Ctrl-C, and print how to use them."""
    with stage(seconds=2) as the_stage:
        click.echo(_instructions(the_stage))
        the_stage.manager.run_until_stopped()


def _instructions(stage: Stage) -> str:
    home, token = stage.config.home, stage.config.secret("FLEET_OPERATOR_TOKEN")
    label = stage.alice.label(REPOSITORY, CAPABILITY)
    issue = json.dumps({"title": "Fix total()", "body": "It is off by one.", "labels": [label]})
    return f"""
The fleet is running.
  API    {stage.config.public_url}/api/v1/tasks
         Authorization: Bearer {token}
  forge  {stage.forge_url}, a fake Forgejo with the repository {REPOSITORY}
  users  alice     {stage.alice.token}
         reviewer  {stage.reviewer.token}

Open an issue for the fleet:
  curl -s -X POST {stage.forge_url}/api/v1/repos/{REPOSITORY}/issues \\
    -H 'Authorization: token {stage.alice.token}' \\
    -H 'Content-Type: application/json' \\
    -d '{issue}'

Then look at its task:
  export FLEET_HOME={home}
  ./fleet task list
  ./fleet task show '{REPOSITORY}#1'

Ctrl-C stops everything and removes it."""


def _play(stage: Stage, say: Callable[[str], None]) -> None:
    """Act as the people on the forge, and tell what the fleet does. Raises StepMissing."""
    teller = narrator.Narrator(stage.fleet.engine, say)
    label = stage.alice.label(REPOSITORY, CAPABILITY)
    issue = stage.alice.open_issue(REPOSITORY, "Fix off-by-one in total()", narrator.ISSUE, [label])
    task_id = f"{REPOSITORY}#{issue}"

    def wait_for(status: str, openings: int) -> None:
        def is_reached() -> bool:
            reached = _has_reached(_task(stage, task_id), status, openings)
            teller.tell_events(task_id)  # after the state was read: its events come first
            return reached

        _wait(stage, f"the task in {status}", is_reached)

    say(f"alice opened issue {task_id} with the label {CAPABILITY}.")
    _wait(stage, "a signed webhook", teller.tell_delivery, process="web")
    wait_for("review_pending", openings=1)
    pull = _task(stage, task_id)["pr_number"]
    stage.reviewer.request_changes(REPOSITORY, pull, "Please use sum() instead of the loop.")
    say(f"reviewer requested changes on pull request #{pull}.")
    wait_for("review_pending", openings=2)
    stage.reviewer.merge(REPOSITORY, pull)
    say(f"reviewer merged pull request #{pull}.")
    wait_for("completed", openings=2)
    _wait(stage, "receipt, comment and label on the issue", lambda: _is_reported(stage, task_id, issue))
    say("The issue is closed, with a signed receipt and the label status:done.")
    _print_receipt(stage, task_id)


def _has_reached(task: Mapping[str, Any], status: str, openings: int) -> bool:
    """Whether the task has this status after so many events `pull_opened`."""
    opened = sum(event["fact"] == "pull_opened" for event in task.get("events", ()))
    return task.get("status") == status and opened >= openings


def _is_reported(stage: Stage, task_id: str, issue: int) -> bool:
    """Whether the forge has everything: the closed issue, its label, both comments. The outbox is empty then."""
    bodies = stage.alice.comments(REPOSITORY, issue)
    kinds = [sum(f"kind={kind} " in body for body in bodies) for kind in ("status", "receipt")]
    shown = stage.alice.issue(REPOSITORY, issue)
    is_done = shown.state == "closed" and "status:done" in shown.labels
    return is_done and kinds == [1, 1] and not _task(stage, task_id)["outbox"]


def _print_receipt(stage: Stage, task_id: str) -> None:
    with stage.fleet.engine.begin() as conn:
        receipt = views.receipt_of(conn, task_id)
    click.echo(f"\nThe receipt:\n{json.dumps(receipt, indent=2, sort_keys=True)}\n\nThe history of {task_id}:")
    print_history(_task(stage, task_id)["events"])


def _wait(stage: Stage, expected: str, has_happened: Callable[[], bool], process: str = "worker") -> None:
    """Wait for a step, and restart processes that die meanwhile. Raises StepMissing."""
    until = time.monotonic() + STEP_SECS
    while not has_happened():
        if stage.manager.stopping:
            raise KeyboardInterrupt
        for name in stage.manager.restart_dead():
            click.echo(f"        {name} died and was restarted", err=True)
        if time.monotonic() > until:
            raise StepMissing(expected, _describe_tasks(stage), process)
        time.sleep(PAUSE_SECS)


def _describe_tasks(stage: Stage) -> str:
    with stage.fleet.engine.begin() as conn:
        tasks, _ = views.task_list(conn, {})
    return ", ".join(f"{task['task_id']} {task['status']} {task['reason'] or ''}" for task in tasks) or "no task"


def _task(stage: Stage, task_id: str) -> Mapping[str, Any]:
    with stage.fleet.engine.begin() as conn:
        return views.task(conn, task_id) or {}


def _clocked_printer() -> Callable[[str], None]:
    """Prints a line after the seconds since now."""
    began = time.monotonic()
    return lambda words: click.echo(f"{time.monotonic() - began:6.2f} s  {words}")
