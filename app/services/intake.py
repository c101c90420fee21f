"""Takes in work: a delivery is a hint where to look, the forge says what is so, and a task is made or moved."""

from typing import Any

import structlog
from sqlalchemy import Connection

from app.domain import matching, prompt
from app.domain.errors import Kind, Refused, Unavailable
from app.domain.lifecycle import Fact, What
from app.domain.task import Mode, Priority, State, Task
from app.forgejo import payloads
from app.ports import Fleet, Forge, Issue, Repository
from app.services import review
from app.store import deliveries, places, tasks, views
from app.store.tables import Row

log = structlog.get_logger()


def apply_deliveries(fleet: Fleet) -> int:
    """Apply waiting deliveries, oldest first; returns how many were looked at. What the forge cannot answer now
    waits; what can never be applied says why."""
    with fleet.engine.begin() as conn:
        waiting = deliveries.take(conn, fleet.clock())
    for delivery in waiting:
        _apply(fleet, delivery)
    return len(waiting)


def look_at_issue(fleet: Fleet, forge_name: str, full_name: str, repository_id: int, number: int) -> str:
    """Bring the task of an issue in line with the forge; returns what was found, as a sentence."""
    forge = fleet.forges(forge_name)
    with fleet.engine.begin() as conn:
        rule = places.rule_for(conn, forge_name, full_name)
        task = tasks.of_issue(conn, forge_name, repository_id, number)
    if task is None and rule is not None and not rule["enabled"]:
        return f"{full_name} is switched off: enabled = false in fleet.toml"
    if rule is None and task is None:
        return f"{full_name} is not among the repositories of fleet.toml"
    issue = forge.issue(full_name, number)
    if issue is None:
        return f"{full_name}#{number} is not an issue"
    if task is not None:
        return _follow(fleet, forge, full_name, task, issue)
    return _take_in(fleet, forge, full_name, repository_id, issue, rule) if rule else ""


def request(fleet: Fleet, asked: dict[str, Any]) -> Task:
    """A task by API call. `asked` has title, requirements, repository?, required_capabilities, priority,
    execution_mode, max_retries, wants_pull_request. Raises Refused."""
    forge_name, repository, rule = _repository_asked_for(fleet, asked["repository"])
    checks = list(rule["validation"]) if rule else []
    text = prompt.read_issue(asked["title"], asked["requirements"], checks)
    needs = tuple(sorted({matching.capability(word) for word in asked["required_capabilities"]} - {""}))
    with fleet.engine.begin() as conn:
        capset = tasks.capset(conn, needs, rule["cli"] if rule else None)
        task = tasks.request(conn, {
            "task_id": tasks.NUMBERED, "mode": asked["execution_mode"], "priority": int(Priority.of(asked["priority"])),
            "capset_id": capset, "forge": forge_name, "repository_id": repository and repository.id,
            "branch": prompt.branch_name("api-{n}", asked["title"]) if repository else None,
            "wants_pull": bool(repository) and asked["wants_pull_request"], "max_retries": asked["max_retries"],
        }, fleet.clock())  # fmt: skip
        views.write_brief(conn, task.id, _brief(asked["title"], asked["requirements"], text, rule, repository) | {
            "source": "api", "task_type": "task", "labels": [], "issue": None, "asked_by": "operator",
        })  # fmt: skip
    fleet.nudge.soon()
    return task


def _apply(fleet: Fleet, delivery: Row) -> None:
    try:
        result, why = _read_and_look(fleet, delivery)
    except Unavailable as later:
        return _later(fleet, delivery, str(later), later.retry_after)
    except (payloads.Unreadable, Refused) as never:
        result, why = "refused", str(never)
    except Exception as broken:
        log.exception("a delivery broke", delivery=delivery["delivery_id"])
        return _later(fleet, delivery, f"it broke here: {broken!r}")
    with fleet.engine.begin() as conn:
        deliveries.applied(conn, delivery["id"], fleet.clock(), result, fleet.mask.text(why))
    log.info("delivery", kind=delivery["event"], delivery=delivery["delivery_id"], result=result, why=why)


def _later(fleet: Fleet, delivery: Row, why: str, wait: float | None = None) -> None:
    """What cannot be applied now waits by itself; those behind it go on."""
    with fleet.engine.begin() as conn:
        deliveries.postpone(conn, delivery, fleet.clock(), fleet.mask.text(why), wait)


def _read_and_look(fleet: Fleet, delivery: Row) -> tuple[str, str]:
    hint = payloads.read(delivery["event"], delivery["body"])
    if hint is None:
        return "ignored", f"{delivery['event']} says nothing about a task"
    forge = fleet.forges(delivery["forge"])
    if not hint.is_pull:
        return "applied", look_at_issue(fleet, forge.name, hint.full_name, hint.repository_id, hint.number)
    with fleet.engine.begin() as conn:
        task = tasks.of_pull(conn, forge.name, hint.repository_id, hint.number, hint.branch or "")
    if task is None:
        return "ignored", f"pull request {hint.number} belongs to no task"
    return "applied", review.look_at_pull(fleet, task, hint.full_name, hint.number)


def _follow(fleet: Fleet, forge: Forge, full_name: str, task: Task, issue: Issue) -> str:
    """The task exists: hear what became of its issue. A merge is looked for first, since it closes the issue too."""
    labelled = bool(matching.required(issue.labels))
    if issue.open and labelled:
        return _hear_wanted(fleet, forge, full_name, task, issue)
    if task.branch:
        review.look_at_pull(fleet, task, full_name, task.pr_number)
    fact = Fact(What.LABEL_REMOVED if issue.open else What.ISSUE_CLOSED)
    return _hear(fleet, task, fact)


def _hear_wanted(fleet: Fleet, forge: Forge, full_name: str, task: Task, issue: Issue) -> str:
    if task.state is not State.CANCELLED:
        return f"{task.task_id} is known and {task.state}"
    if not _is_wanted_by_a_writer(forge, full_name, issue):
        return f"{task.task_id}: whoever labelled it may not write to {full_name}"
    return _hear(fleet, task, Fact(What.ISSUE_WANTED))


def _hear(fleet: Fleet, task: Task, fact: Fact) -> str:
    heard = review.hear(fleet, task, fact)
    fleet.nudge.soon()
    return f"{task.task_id} is {heard.state}"


def _take_in(fleet: Fleet, forge: Forge, full_name: str, repository_id: int, issue: Issue, rule: Row) -> str:
    if not issue.open or not matching.required(issue.labels):
        return f"{full_name}#{issue.number} is closed or has no agent: label"
    if not _is_wanted_by_a_writer(forge, full_name, issue):
        return f"{full_name}#{issue.number}: whoever labelled it may not write to {full_name}"
    repository = _known(fleet, forge, repository_id, full_name) or forge.repository(full_name)
    if repository is None:
        return f"{full_name} cannot be seen with our token"
    with fleet.engine.begin() as conn:
        task = _make(conn, fleet, forge, repository, issue, rule)
    return f"{task.task_id} was made"


def _known(fleet: Fleet, forge: Forge, repository_id: int, full_name: str) -> Repository | None:
    """The repository as we met it before, if it still bears that name; the reconcile round keeps it true."""
    with fleet.engine.begin() as conn:
        row = places.repository(conn, forge.name, repository_id)
    if row is None or row["full_name"] != full_name:
        return None
    return Repository(row["id"], row["full_name"], row["clone_url"], row["default_branch"])


def _is_wanted_by_a_writer(forge: Forge, full_name: str, issue: Issue) -> bool:
    """Only people who may write start work: whoever put the label there, else who opened the issue with it.

    Where our token may not ask, the label itself is the proof: Forgejo drops labels of those who may not write.
    """
    asker = forge.who_labelled(full_name, issue.number, matching.PREFIX) or issue.author
    return forge.may_write(full_name, asker) is not False


def _make(conn: Connection, fleet: Fleet, forge: Forge, repository: Repository, issue: Issue, rule: Row) -> Task:
    task_id = f"{repository.full_name}#{issue.number}"
    text = prompt.read_issue(issue.title, issue.body, rule["validation"])
    needs = matching.required(issue.labels)
    known = tasks.of_issue(conn, forge.name, repository.id, issue.number)
    if known is not None:
        return known
    places.remember_repository(conn, forge.name, vars(repository))
    task = tasks.request(conn, {
        "task_id": task_id, "mode": Mode.UNDECIDED, "priority": int(_priority(issue.labels)),
        "capset_id": tasks.capset(conn, needs, rule["cli"]), "forge": forge.name, "repository_id": repository.id,
        "issue_number": issue.number, "branch": prompt.branch_name(issue.number, issue.title),
        "wants_pull": True, "max_retries": rule["max_retries"], "prompt_sha256": text.hash,
    }, fleet.clock())  # fmt: skip
    if task.version == 1:
        views.write_brief(conn, task.id, _brief(issue.title, issue.body, text, rule, repository) | {
            "source": f"forgejo:{task_id}", "task_type": _task_type(issue.labels), "labels": list(issue.labels),
            "issue": {"number": issue.number, "title": prompt.one_line(issue.title), "url": issue.url},
            "asked_by": issue.author,
        })  # fmt: skip
    return task


def _brief(
    title: str, body: str, text: prompt.Prompt, rule: Row | None, repository: Repository | None
) -> dict[str, Any]:
    shown = repository and {name: getattr(repository, name) for name in ("full_name", "clone_url", "default_branch")}
    return {
        "title": prompt.one_line(title),
        "requirements": prompt.clean(body)[: prompt.LONGEST_BODY],
        "prompt": {
            "goal": text.goal, "constraints": list(text.constraints),
            "validation": list(text.validation), "text": text.text,
        },
        "prompt_sha256": text.hash,
        "repository": shown,
        "validation": list(rule["validation"]) if rule else [],
        "timeout_secs": rule["task_timeout_secs"] if rule else 3600,
    }  # fmt: skip


def _priority(labels: tuple[str, ...]) -> Priority:
    words = [label.split(":", 1)[1] for label in labels if label.lower().startswith("priority:")]
    return max((Priority.of(word) for word in words), default=Priority.NORMAL)


def _task_type(labels: tuple[str, ...]) -> str:
    return next((matching.capability(label) for label in labels if label.lower().startswith(matching.PREFIX)), "task")


def _repository_asked_for(fleet: Fleet, full_name: str | None) -> tuple[str | None, Repository | None, Row | None]:
    """The forge, repository and rule that an API call names; all None where it names none."""
    if full_name is None:
        return None, None, None
    with fleet.engine.begin() as conn:
        found = [(row["name"], places.rule_for(conn, row["name"], full_name)) for row in places.all_forges(conn)]
    for name, rule in found:
        repository = fleet.forges(name).repository(full_name) if rule else None
        if repository:
            with fleet.engine.begin() as conn:
                places.remember_repository(conn, name, vars(repository))
            return name, repository, rule
    raise Refused(
        Kind.INVALID,
        f"repository: {full_name!r} is not among the repositories of fleet.toml, or cannot be seen.",
    )
