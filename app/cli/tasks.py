"""`fleet task`, `fleet why`, `fleet replay`: what is stuck, why, since when, and what to do about it."""

from typing import Any, cast

import click

from app import wiring
from app.api.requests import NewTask
from app.cli.output import ago, as_json, table
from app.domain.errors import Kind, Refused
from app.domain.lifecycle import FactKind
from app.domain.quota import Amount
from app.ports import Fleet
from app.services import create_task, operator
from app.services.dispatch import budgets, explain
from app.services.replay import differences
from app.store import tasks, views

json_option = click.option("--json", "json_", is_flag=True, help="For programs.")


@click.group()
def task() -> None:
    """Look at tasks, make them, retry and cancel them."""


@task.command("list")
@click.option("--status", help="Only tasks in this state.")
@click.option("--repository", help="Only tasks of owner/name.")
@click.option("--host", help="Only tasks of this host.")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1, 500))
@json_option
def list_(status: str | None, repository: str | None, host: str | None, limit: int, json_: bool) -> None:
    """Tasks, newest first."""
    with _fleet().engine.begin() as conn:
        found, total = views.task_list(conn, {"status": status, "repository": repository, "host": host}, limit)
    if json_:
        return as_json(found)
    columns = ("task", "status", "since", "place", "run", "pull", "title")
    table(columns, [(*_short(one), one["title"]) for one in found], none="There are no such tasks.")
    if total > len(found):
        click.echo(f"{len(found)} of {total}; --limit shows more")


@task.command()
@click.argument("task_id")
@json_option
def show(task_id: str, json_: bool) -> None:
    """One task: where it is, its runs, its history, its outbox."""
    with _fleet().engine.begin() as conn:
        found = views.task(conn, task_id)
    if found is None:
        raise Refused(Kind.UNKNOWN, f"There is no task {task_id!r}; `fleet task list` shows those there are.")
    if json_:
        return as_json(found)
    shown = (
        "task_id",
        "status",
        "reason",
        "title",
        "assigned_host",
        "branch_name",
        "pr_url",
        "retry_count",
        "review_count",
        "last_activity_at",
    )
    table(("", ""), [(name, found[name]) for name in shown if found[name] is not None])
    table(("run", "place", "cli", "end", "why"), [_run(run) for run in found["runs"]])
    denied = [(run["number"], one) for run in found["runs"] for one in run["denied_actions"]]
    table(("run", "was not allowed to"), denied)
    table(("run", "warning"), [(run["number"], one) for run in found["runs"] for one in run["warnings"]])
    history(found["events"])
    table(
        ("outbox", "tries", "error"),
        [(entry["kind"], entry["tries"], entry["error"]) for entry in found["outbox"]],
    )


@task.command()
@click.argument("title")
@click.option("--requirements", default="", help="What is wanted, in words.")
@click.option("--repository", help="owner/name; without it the work is done in an empty folder.")
@click.option(
    "--capability",
    "required_capabilities",
    multiple=True,
    help="What the place must be able to do; may be repeated.",
)
@click.option("--priority", default="normal", show_default=True)
@click.option("--no-pull-request", is_flag=True, help="Finishing is enough; nothing is to be merged.")
@json_option
def create(json_: bool, no_pull_request: bool, **given: Any) -> None:
    """Ask for work without an issue."""
    given |= {
        "required_capabilities": list(given["required_capabilities"]),
        "wants_pull_request": not no_pull_request,
    }
    schema = NewTask()
    faults = schema.validate(given)
    if faults:
        raise Refused(Kind.INVALID, "; ".join(f"{name}: {' '.join(map(str, what))}" for name, what in faults.items()))
    _answer(create_task.request(_fleet(), dict(schema.load(given))).task_id, json_)


@task.command()
@click.argument("task_id")
@json_option
def retry(task_id: str, json_: bool) -> None:
    """Try a task again that failed, was lost, was cancelled or is parked."""
    _answer(operator.request(_fleet(), task_id, FactKind.RETRY).task_id, json_)


@task.command()
@click.argument("task_id")
@json_option
def cancel(task_id: str, json_: bool) -> None:
    """Cancel a task; what still runs is stopped."""
    _answer(operator.request(_fleet(), task_id, FactKind.CANCEL).task_id, json_)


@task.command("raise")
@click.argument("task_id")
@click.option("--tokens", type=click.FloatRange(min=0), default=0.0, help="So many more tokens.")
@click.option("--dollars", type=click.FloatRange(min=0), default=0.0, help="So many more dollars.")
@click.option("--minutes", type=click.FloatRange(min=0), default=0.0, help="So many more minutes.")
@json_option
def raise_(task_id: str, tokens: float, dollars: float, minutes: float, json_: bool) -> None:
    """Let a task use more than its budgets say; one that is parked for its budget goes on."""
    more = Amount(tokens, dollars, minutes)
    if more == Amount():
        raise Refused(Kind.INVALID, "Say how much more: --tokens, --dollars or --minutes.")
    _answer(budgets.raise_budget(_fleet(), task_id, more).task_id, json_)


@click.command()
@click.argument("task_id")
@json_option
def why(task_id: str, json_: bool) -> None:
    """Why a task is where it is; for one that waits, why each host refuses it."""
    with _fleet().engine.begin() as conn:
        found = explain.why(conn, tasks.find(conn, task_id), wiring.now())
    if json_:
        return as_json(found)
    refusals = cast(dict[str, str], found.pop("refusals", {})) | cast(dict[str, str], found.pop("agents", {}))
    if found.get("sentence"):
        click.echo(f"{task_id} {found.pop('sentence')}")
    needs = ", ".join(map(str, cast(list[str], found.pop("needs"))))
    table(("", ""), [("needs", needs or "nothing special"), *((k, v) for k, v in found.items() if v is not None)])
    if refusals:
        table(("place", "cannot take it because"), list(refusals.items()))


@click.command()
@click.option("--check", is_flag=True, required=True, help="Compare only; nothing is written.")
def replay(check: bool) -> None:  # noqa: ARG001 - the flag says that nothing is written
    """Rebuild the tasks from their events and compare them with the table."""
    count, differing = differences(_fleet())
    for line in differing:
        click.echo(line)
    if differing:
        raise Refused(Kind.INVALID, f"{len(differing)} of {count} tasks differ from what their events say.")
    click.echo(f"{count} tasks: each is what its events say")


def history(events: list[dict[str, Any]]) -> None:
    """A task's events as a table."""
    rows = [(e["seq"], e["at"][11:23], e["fact"], e["to"], e["run"], _told(e["detail"])) for e in events]
    table(("", "at", "fact", "then", "run", ""), rows)


def _told(detail: dict[str, Any]) -> str:
    """What an event says beside its name, in few words; commits short."""
    short = {name: str(detail[name])[:10] for name in ("head", "merge_commit") if detail.get(name)}
    plain = {
        name: detail[name]
        for name in ("host_id", "agent_type", "number", "reason", "by", "merged_by")
        if detail.get(name)
    }
    return ", ".join(f"{name} {value}" for name, value in (plain | short).items())


def _fleet() -> Fleet:
    return wiring.fleet(connections=1)


def _answer(task_id: str, json_: bool) -> None:
    with _fleet().engine.begin() as conn:
        found = views.task(conn, task_id, with_events=False) or {}
    as_json(found) if json_ else click.echo(f"{task_id} is {found['status']}")


def _short(one: dict[str, Any]) -> tuple[Any, ...]:
    place = one["assigned_host"] or one["assigned_agent_id"]
    return (
        one["task_id"],
        one["status"],
        ago(one["last_activity_at"], wiring.now()),
        place,
        one["run"],
        one["pr_number"],
    )


def _run(run: dict[str, Any]) -> tuple[Any, ...]:
    return (
        run["number"],
        run["host_id"] or run["agent_id"],
        run["cli"],
        run["end"] or "going",
        run["why"] or run["summary"],
    )
