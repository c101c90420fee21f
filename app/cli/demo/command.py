"""`fleet demo`: the whole journey once, on embedded servers and a small forge, told while it happens."""

import json
import time
from collections.abc import Callable
from typing import Any

import click

from app.cli.demo import narrator
from app.cli.demo.stage import CAPABILITY, REPOSITORY, Stage, stage
from app.cli.local.process_manager import last_lines
from app.cli.tasks import print_history
from app.config.settings import ConfigError
from app.store import views

STEP_SECS = 45.0


class Missed(Exception):
    """A step of the story did not happen. `process` is the one whose log says why."""

    def __init__(self, expected: str, seen: str, process: str = "worker") -> None:
        super().__init__(f"expected {expected}; seen: {seen}")
        self.process = process


@click.command()
def demo() -> None:
    """Show one issue become a merged pull request.

    Starts the fleet, a small forge and a scripted coding CLI, then removes everything.
    """
    began = time.monotonic()
    with stage() as set_:
        _say(began, f"Postgres, Valkey, web, beat and worker are up; a small forge is at {set_.forge_url}")
        try:
            _play(set_, began)
        except Missed as missed:
            lines = last_lines(set_.config.home / "log" / f"{missed.process}.log")
            raise ConfigError(
                [f"The demo failed: {missed}.", f"The last lines of {missed.process}:", *lines]
            ) from missed
    _say(began, "everything is stopped and nothing is left lying about")
    click.echo("\nTo look around yourself: ./fleet up --demo")


def run_for_visitors() -> None:
    """Keep the demo's stage running until Ctrl-C, and say how to use it."""
    with stage(seconds=2) as set_:
        home, token = set_.config.home, set_.config.secret("FLEET_OPERATOR_TOKEN")
        label = set_.alice.label(REPOSITORY, CAPABILITY)
        issue = json.dumps({"title": "Fix total()", "body": "It is off by one.", "labels": [label]})
        click.echo(f"""
The fleet is up.
  API           {set_.config.public_url}/api/v1/tasks   (Authorization: Bearer {token})
  forge         {set_.forge_url}   a fake Forgejo with the repository {REPOSITORY}
  its people    alice {set_.alice.token}   reviewer {set_.reviewer.token}

Open an issue that an agent will work on, then look at its task:
  curl -s -X POST {set_.forge_url}/api/v1/repos/{REPOSITORY}/issues -H 'Authorization: token {set_.alice.token}' \\
    -H 'Content-Type: application/json' -d '{issue}'
  FLEET_HOME={home} ./fleet task list
  FLEET_HOME={home} ./fleet task show '{REPOSITORY}#1'

Ctrl-C stops it and removes everything.""")
        set_.manager.run_until_stopped()


def _play(stage: Stage, began: float) -> None:
    told = narrator.Narrator(stage.fleet.engine, lambda words: _say(began, words))
    label = stage.alice.label(REPOSITORY, CAPABILITY)
    issue = stage.alice.open_issue(REPOSITORY, "Fix off-by-one in total()", narrator.ISSUE, [label])
    task_id = f"{REPOSITORY}#{issue}"
    _say(began, f"alice opened {task_id} with the label {CAPABILITY}")
    _until(stage, "a signed `issues` delivery in the inbox", told.delivery, process="web")
    _until(stage, "the pull request waiting for review", lambda: told.reached(task_id, "review_pending", pulls=1))
    pull = _task(stage, task_id)["pr_number"]
    stage.reviewer.ask_for_changes(REPOSITORY, pull, "Please use sum() instead of the loop.")
    _say(began, f"reviewer asked for changes on pull request #{pull}")
    _until(stage, "a second push in the same session", lambda: told.reached(task_id, "review_pending", pulls=2))
    stage.reviewer.merge(REPOSITORY, pull)
    _say(began, f"reviewer merged pull request #{pull}")
    _until(stage, "the task completed", lambda: told.reached(task_id, "completed", pulls=2))
    _until(stage, "receipt, comment and label on the issue", lambda: _proven(stage, task_id, issue))
    _say(began, "the receipt and the label status:done are on the issue")
    _show(stage, task_id)


def _proven(stage: Stage, task_id: str, issue: int) -> bool:
    """All is on the forge: the closed issue, its label, a comment of each kind; the outbox is empty."""
    bodies = stage.alice.comments(REPOSITORY, issue)
    kinds = [sum(f"kind={kind} " in body for body in bodies) for kind in ("status", "receipt")]
    on_issue = stage.alice.issue(REPOSITORY, issue)
    labels = {label["name"] for label in on_issue["labels"]}
    return (
        kinds == [1, 1]
        and "status:done" in labels
        and on_issue["state"] == "closed"
        and not _task(stage, task_id)["outbox"]
    )


def _show(stage: Stage, task_id: str) -> None:
    task = _task(stage, task_id)
    with stage.fleet.engine.begin() as conn:
        proof = views.receipt_of(conn, task_id)
    click.echo(f"\nThe receipt:\n{json.dumps(proof, indent=2, sort_keys=True)}\n\nThe history of {task_id}:")
    print_history(task["events"])


def _until(stage: Stage, expected: str, happened: Callable[[], bool], process: str = "worker") -> None:
    """Wait for a step, keeping the processes alive meanwhile. Raises Missed."""
    until = time.monotonic() + STEP_SECS
    while not happened():
        if stage.manager.stopping:
            raise KeyboardInterrupt
        for name in stage.manager.restart_dead():
            click.echo(f"        {name} had died and was started again", err=True)
        if time.monotonic() > until:
            with stage.fleet.engine.begin() as conn:
                tasks, _ = views.task_list(conn, {})
            seen = ", ".join(f"{task['task_id']} {task['status']} {task['reason'] or ''}" for task in tasks)
            raise Missed(expected, seen or "no task", process)
        time.sleep(0.05)


def _task(stage: Stage, task_id: str) -> dict[str, Any]:
    with stage.fleet.engine.begin() as conn:
        return views.task(conn, task_id) or {}


def _say(began: float, words: str) -> None:
    click.echo(f"{time.monotonic() - began:6.2f} s  {words}")
