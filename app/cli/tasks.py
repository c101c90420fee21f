"""`fleet task`, `fleet why`, `fleet replay`: show, create, retry and cancel tasks; explain and check their state."""

from collections.abc import Iterable, Mapping
from typing import Any, cast

import click

from app.cli.connect import open_fleet
from app.cli.output import age, json_option, print_json, print_table
from app.domain.errors import Kind, Refused
from app.domain.lifecycle import FactKind
from app.domain.quota import Amount
from app.ports import Fleet
from app.services import create_task, operator
from app.services.dispatch import budgets, explain
from app.services.replay import differences
from app.store import tasks, views

TASK_FIELDS = (
    "task_id", "status", "reason", "title", "assigned_host", "branch_name", "pr_url", "retry_count", "review_count",
    "last_activity_at",
)  # fmt: skip
DETAILS = {
    "host_id": "on {}", "agent_type": "with {}", "number": "#{}", "reason": "{}", "by": "by {}", "merged_by": "by {}",
    "head": "head {}", "merge_commit": "as {}",
}  # fmt: skip
COMMITS = ("head", "merge_commit")


@click.group()
def task() -> None:
    """List and show tasks; create, retry and cancel them."""


@task.command("list")
@click.option("--status", help="Only tasks in this state.")
@click.option("--repository", help="Only tasks of owner/name.")
@click.option("--host", help="Only tasks of this host.")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1, 500), help="At most this many.")
@json_option
def list_(status: str | None, repository: str | None, host: str | None, limit: int, json_: bool) -> None:
    """List tasks, newest first."""
    fleet = open_fleet()
    with fleet.engine.begin() as conn:
        found, total = views.task_list(conn, {"status": status, "repository": repository, "host": host}, limit)
    if json_:
        return print_json(found)
    columns = ("task", "status", "since", "where", "run", "pull", "title")
    print_table(columns, [_task_row(fleet, task) for task in found], "There are no such tasks.")
    if total > len(found):
        click.echo(f"{len(found)} of {total}; --limit shows more")


@task.command()
@click.argument("task_id")
@json_option
def show(task_id: str, json_: bool) -> None:
    """Show a task: its state, runs, history and outbox."""
    with open_fleet().engine.begin() as conn:
        found = views.task(conn, task_id)
    if found is None:
        raise Refused(Kind.UNKNOWN, f"There is no task {task_id!r}; `fleet task list` shows the tasks.")
    if json_:
        return print_json(found)
    print_table(("", ""), [(name, found[name]) for name in TASK_FIELDS if found[name] is not None])
    print_table(("run", "where", "cli", "end", "why"), [_run_row(run) for run in found["runs"]])
    denied = [(run["number"], action) for run in found["runs"] for action in run["denied_actions"]]
    print_table(("run", "denied action"), denied)
    print_table(("run", "warning"), [(run["number"], text) for run in found["runs"] for text in run["warnings"]])
    print_history(found["events"])
    outbox = [(entry["kind"], entry["tries"], entry["error"]) for entry in found["outbox"]]
    print_table(("outbox", "tries", "error"), outbox)


@task.command()
@click.argument("title")
@click.option("--requirements", default="", help="What to do, in words.")
@click.option("--repository", help="owner/name; without it, work starts in an empty folder.")
@click.option(
    "--capability", "required_capabilities", multiple=True, help="A capability that the host needs; repeatable."
)
@click.option("--priority", default="normal", show_default=True, help="low, normal, high or urgent.")
@click.option("--no-pull-request", is_flag=True, help="Complete the task without a pull request.")
@json_option
def create(json_: bool, no_pull_request: bool, **given: Any) -> None:
    """Create a task without an issue."""
    from app.api.requests import NewTask

    given |= {
        "required_capabilities": list(given["required_capabilities"]),
        "wants_pull_request": not no_pull_request,
    }
    schema = NewTask()
    faults = schema.validate(given)
    if faults:
        raise Refused(Kind.INVALID, "; ".join(f"{name}: {' '.join(map(str, what))}" for name, what in faults.items()))
    wanted: create_task.TaskRequest = schema.load(given)
    fleet = open_fleet()
    _print_status(fleet, create_task.request(fleet, wanted).task_id, json_)


@task.command()
@click.argument("task_id")
@json_option
def retry(task_id: str, json_: bool) -> None:
    """Retry a failed, lost, cancelled or parked task."""
    fleet = open_fleet()
    _print_status(fleet, operator.request(fleet, task_id, FactKind.RETRY).task_id, json_)


@task.command()
@click.argument("task_id")
@json_option
def cancel(task_id: str, json_: bool) -> None:
    """Cancel a task and stop its run."""
    fleet = open_fleet()
    _print_status(fleet, operator.request(fleet, task_id, FactKind.CANCEL).task_id, json_)


@task.command("raise")
@click.argument("task_id")
@click.option("--tokens", type=click.FloatRange(min=0), default=0.0, help="Tokens to add.")
@click.option("--dollars", type=click.FloatRange(min=0), default=0.0, help="Dollars to add.")
@click.option("--minutes", type=click.FloatRange(min=0), default=0.0, help="Minutes to add.")
@json_option
def raise_(task_id: str, tokens: float, dollars: float, minutes: float, json_: bool) -> None:
    """Raise a task's budgets; resume it if it is parked for one."""
    more = Amount(tokens, dollars, minutes)
    if more == Amount():
        raise Refused(Kind.INVALID, "Say how much to add: --tokens, --dollars or --minutes.")
    fleet = open_fleet()
    _print_status(fleet, budgets.raise_budget(fleet, task_id, more).task_id, json_)


@click.command()
@click.argument("task_id")
@json_option
def why(task_id: str, json_: bool) -> None:
    """Explain why a task is where it is.

    For a task that waits, say why each host and each agent refuses it.
    """
    fleet = open_fleet()
    with fleet.engine.begin() as conn:
        found = explain.why(conn, tasks.find(conn, task_id), fleet.clock())
    if json_:
        return print_json(found)
    refusals = cast(dict[str, str], found.pop("refusals", {})) | cast(dict[str, str], found.pop("agents", {}))
    if found.get("sentence"):
        click.echo(f"{task_id} {found.pop('sentence')}")
    needs = ", ".join(map(str, cast(list[str], found.pop("needs"))))
    print_table(("", ""), [("needs", needs or "nothing special"), *((k, v) for k, v in found.items() if v is not None)])
    if refusals:
        print_table(("host or agent", "cannot take it because"), list(refusals.items()))


@click.command()
@click.option("--check", is_flag=True, required=True, help="Compare only; write nothing.")
def replay(check: bool) -> None:  # noqa: ARG001 - the flag says that nothing is written
    """Check that the tasks match their events.

    Rebuilds each task from its event log and compares it with the task table.
    """
    count, differing = differences(open_fleet())
    for line in differing:
        click.echo(line)
    if differing:
        raise Refused(Kind.INVALID, f"{len(differing)} of {count} tasks differ from their events.")
    click.echo(f"{count} tasks match their events")


def print_history(events: Iterable[Mapping[str, Any]]) -> None:
    """Print a task's events as a table."""
    rows = [(e["seq"], e["at"][11:23], e["fact"], e["to"], e["run"], _describe(e["detail"])) for e in events]
    print_table(("", "at", "fact", "then", "run", ""), rows)


def _describe(detail: Mapping[str, Any]) -> str:
    """The details of an event in a few words, commits shortened."""
    values = {name: str(detail[name]) for name in DETAILS if detail.get(name)}
    return ", ".join(DETAILS[name].format(value[:10] if name in COMMITS else value) for name, value in values.items())


def _print_status(fleet: Fleet, task_id: str, json_: bool) -> None:
    with fleet.engine.begin() as conn:
        found = views.task(conn, task_id, with_events=False) or {}
    print_json(found) if json_ else click.echo(f"{task_id} is {found['status']}")


def _task_row(fleet: Fleet, task: Mapping[str, Any]) -> tuple[object, ...]:
    since = age(task["last_activity_at"], fleet.clock())
    where = task["assigned_host"] or task["assigned_agent_id"]
    return task["task_id"], task["status"], since, where, task["run"], task["pr_number"], task["title"]


def _run_row(run: Mapping[str, Any]) -> tuple[object, ...]:
    where, end, why = run["host_id"] or run["agent_id"], run["end"] or "running", run["why"] or run["summary"]
    return run["number"], where, run["cli"], end, why
