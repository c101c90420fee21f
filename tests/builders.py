"""Builders: the nouns of the tests. Each gives a whole thing; a test names only what it is about."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection

from app.domain.lifecycle import Fact, FactKind, OutboxKind
from app.domain.outbox import OutboxEntry
from app.domain.prompt import Prompt
from app.domain.run import Run
from app.domain.task import Mode, Priority, State, Task
from app.domain.task_details import AcceptedText, TaskDetails
from app.ports import Repository
from app.store import fleet_config, hosts, runs, task_details, tasks

AT = datetime(2026, 11, 24, 3, 0, tzinfo=UTC)


def a_task(**given: Any) -> Task:
    """A task as the domain sees it: waiting, undecided, of an issue."""
    plain = Task(
        id=1, task_id="acme/widgets#12", state=State.CREATED, mode=Mode.UNDECIDED, priority=Priority.NORMAL, requirement_set_id=1,
        version=1, ready=True, created_at=AT, moved_at=AT, forge="main", repository_id=42, issue_number=12,
        branch="task/12-fix-the-total",
    )  # fmt: skip
    return replace(plain, **given)


def a_fact(what: FactKind, run: int | None = None, key: str | None = None, **detail: Any) -> Fact:
    return Fact(what, detail, run=run, key=key)


def a_request(
    conn: Connection, task_id: str = "acme/widgets#12", needs: tuple[str, ...] = ("python",), **given: Any
) -> dict[str, Any]:
    """What a REQUESTED fact says, its capabilities interned."""
    number = int(task_id.rpartition("#")[2])
    return {
        "task_id": task_id, "mode": Mode.UNDECIDED, "priority": int(Priority.NORMAL), "requirement_set_id": tasks.requirement_set(conn, needs),
        "forge": "main", "repository_id": 42, "issue_number": number, "branch": f"task/{number}-fix", "wants_pull": True,
        "max_retries": 2, **given,
    }  # fmt: skip


def a_prompt(goal: str = "Fix the total", text: str = "# Fix the total\n") -> Prompt:
    return Prompt(goal, (), (), text)


def a_stored_task(conn: Connection, task_id: str = "acme/widgets#12", at: datetime = AT, **given: Any) -> Task:
    """A task in the database, with its texts."""
    task = tasks.create(conn, a_request(conn, task_id, **given), at)
    text = AcceptedText("Fix the total", "It is off by one.", a_prompt(), issue={"number": task.issue_number})
    details = TaskDetails(
        text, source=f"forgejo:{task_id}", task_type="python", labels=("agent:python",), timeout_secs=60,
        repository={"full_name": "acme/widgets"}, requested_by="alice",
    )  # fmt: skip
    task_details.add(conn, task.id, details)
    return task


def declared(forge_url: str = "https://forge.example.org", **given: Any) -> dict[str, Any]:
    """A fleet.toml as it is read: one forge, one repository, one host with a slot for each of two runs."""
    return {
        "forges": {"main": {
            "url": forge_url, "token_env": "FLEET_FORGE_TOKEN", "token_file": None,
            "webhook_secret_env": "FLEET_WEBHOOK_SECRET", "webhook_secret_file": None,
        }},
        "repositories": [{"forge": "main", "name": "acme/*", "cli": None, "max_retries": 2, "task_timeout_secs": 60, "validation": []}],
        "hosts": [a_host()],
        "clis": {},
        "prices": {},
    } | given  # fmt: skip


def a_host(
    host_id: str = "localhost", slots: int = 2, capabilities: tuple[str, ...] = ("python",), **given: Any
) -> dict[str, Any]:
    agents = [{"agent_type": "coder", "max_concurrency": slots, "capabilities": list(capabilities)}]
    reach = {"ssh_user": None, "ssh_port": 22, "ssh_key_path": None, "host_key": None}
    return {"host_id": host_id, "hostname": "localhost", "work_dir": None, "agents": agents, **reach, **given}


def a_repository(**given: Any) -> Repository:
    """acme/widgets as the forge describes it."""
    plain = Repository(42, "acme/widgets", "https://forge/acme/widgets.git", "main")
    return replace(plain, **given)


def a_run(**given: Any) -> Run:
    """A run as the domain sees it: the first of its task, on this machine."""
    plain: dict[str, Any] = {
        "id": 1, "task_pk": 1, "number": 1, "name": "acme-widgets-12-t1.1", "assigned_at": AT, "host_id": "localhost",
    }  # fmt: skip
    return Run(**plain | given)


def an_outbox_entry(**given: Any) -> OutboxEntry:
    """The entry that starts the first run of a task."""
    plain: dict[str, Any] = {
        "id": 1, "task_pk": 1, "seq": 2, "kind": OutboxKind.START, "run": 1, "due_at": AT, "tries": 1,
    }  # fmt: skip
    return OutboxEntry(**plain | given)


def open_on_hosts(conn: Connection) -> list[Run]:
    """Every run on a host that has not ended."""
    return [run for host in hosts.all_hosts(conn) for run in runs.open_on_host(conn, host.host_id)]


def apply(conn: Connection, **given: Any) -> None:
    """Declare a fleet.toml."""
    fleet_config.apply(conn, declared(**given))


def a_plain_task(conn: Connection, at: datetime, **given: Any) -> Task:
    """A task in the database that was asked for without an issue, and wants no pull request."""
    plain: dict[str, Any] = {
        "task_id": tasks.NUMBERED, "mode": Mode.UNDECIDED, "priority": int(Priority.NORMAL), "forge": None,
        "repository_id": None, "issue_number": None, "branch": None, "wants_pull": False, "max_retries": 20,
    }  # fmt: skip
    if "requirement_set_id" not in given:
        plain["requirement_set_id"] = tasks.requirement_set(conn, ())
    task = tasks.create(conn, plain | given, at)
    text = AcceptedText("Fix it", "", a_prompt("Fix it", "Fix it"))
    task_details.add(conn, task.id, TaskDetails(text, source="api", task_type="task", timeout_secs=60))
    return task
