"""Brings the task of an issue in line with the forge: made, re-routed, its edits noted, ended, brought back."""

from sqlalchemy import Connection

from app.domain import matching, prompt
from app.domain.lifecycle import Fact, FactKind
from app.domain.repository import Rule
from app.domain.task import Mode, Priority, State, Task
from app.ports import Fleet, Forge, Issue, Repository, Requester
from app.services import facts
from app.services.forge import issue_text, permissions, pull_requests, renames, repository_settings
from app.services.forge.repository_settings import Settings
from app.store import fleet_config, task_details, tasks, views

WAITING = frozenset({State.CREATED, State.PARKED})


def sync_issue(fleet: Fleet, forge_name: str, full_name: str, repository_id: int, number: int) -> str:
    """Bring the task of an issue in line with the forge; returns what was found, as a sentence."""
    forge = fleet.forges(forge_name)
    with fleet.engine.begin() as conn:
        rule = fleet_config.rule_for(conn, forge_name, full_name)
        task = tasks.of_issue(conn, forge_name, repository_id, number)
    if task is None and rule is not None and not rule.enabled:
        return f"{full_name} is switched off: enabled = false in fleet.toml"
    if rule is None and task is None:
        return f"{full_name} is not among the repositories of fleet.toml"
    issue = forge.issue(full_name, number)
    if issue is None:
        return _gone(fleet, forge, full_name, task) or f"{full_name}#{number} is not an issue"
    if issue.repository_id not in (0, repository_id):
        return _sync_renamed(fleet, forge, full_name, repository_id, number)
    if task is not None:
        return _follow(fleet, forge, full_name, task, issue)
    return _take_in(fleet, forge, full_name, repository_id, issue, rule) if rule else ""


def _sync_renamed(fleet: Fleet, forge: Forge, full_name: str, repository_id: int, number: int) -> str:
    """Another repository bears this name now; ours was renamed, or is gone."""
    name = renames.fetch_name(fleet, forge.name, repository_id)
    if name is None or name == full_name:
        return f"{full_name} is another repository now"
    return sync_issue(fleet, forge.name, name, repository_id, number)


# --- an issue that is a task already ---------------------------------------------------------------------


def _follow(fleet: Fleet, forge: Forge, full_name: str, task: Task, issue: Issue) -> str:
    """Hear what became of the issue. A merge is looked for first, since it closes the issue too."""
    if issue.open and _is_wanted(forge, full_name, issue):
        if task.state in (State.CANCELLED, State.FAILED) and (
            said := _bring_back(fleet, forge, full_name, task, issue)
        ):
            return said
        _reroute(fleet, forge, full_name, task, issue)
        return issue_text.apply_edit(fleet, forge, full_name, task, issue)
    if task.branch:
        pull_requests.record_merge(fleet, task, full_name)
    fact = Fact(FactKind.LABEL_REMOVED if issue.open else FactKind.ISSUE_CLOSED)
    return _hear(fleet, task, fact)


def _gone(fleet: Fleet, forge: Forge, full_name: str, task: Task | None) -> str | None:
    """An issue that was deleted is closed for good, which the forge tells nobody. Where the whole repository cannot be
    seen, it may only be hidden from us."""
    repository = forge.repository(full_name) if task and task.live else None
    if task is None or repository is None or repository.id != task.repository_id:
        return None
    return _hear(fleet, task, Fact(FactKind.ISSUE_CLOSED, {"deleted": True}))


def _bring_back(fleet: Fleet, forge: Forge, full_name: str, task: Task, issue: Issue) -> str | None:
    """Whoever wants it again, wants it as it reads now: who put the label there anew, else who opened it again. Its
    author may do that without any right to write, and change it before. None where nobody wants again what failed."""
    requester = _requester(forge, full_name, issue)
    with fleet.engine.begin() as conn:
        accepted = views.brief(conn, task.id)["accepted_entry"] or 0
    if requester and requester.entry > accepted:
        may = permissions.may_request(fleet, forge, full_name, issue, requester)
    elif task.state is State.FAILED:
        return None
    else:
        requester = forge.who_reopened(full_name, issue.number)
        may = bool(
            requester
            and permissions.is_accepted(fleet, forge, requester.account)
            and permissions.may_write(forge, full_name, requester.account.login)
        )
    if not may:
        return f"{task.task_id}: whoever wants it again may not write to {full_name}"
    once = f"wanted {requester.entry}" if requester and task.state is State.FAILED else None
    heard = issue_text.accept_with_fact(
        fleet, forge, full_name, task, issue, requester, Fact(FactKind.ISSUE_WANTED, key=once)
    )
    fleet.nudge.soon()
    return f"{task.task_id} is {heard.state}"


def _reroute(fleet: Fleet, forge: Forge, full_name: str, task: Task, issue: Issue) -> None:
    """Labels that changed while the task waits change who may take it, and when."""
    if task.state not in WAITING:
        return
    with fleet.engine.begin() as conn:
        had, cli = views.needs(conn, task.requirement_set_id)
        needs, priority = matching.required(issue.labels), priority_of(issue.labels)
        if (tuple(had), task.priority) == (needs, priority):
            return
        requirement_set = tasks.requirement_set(conn, needs, cli)
    if not permissions.may_request(fleet, forge, full_name, issue, _requester(forge, full_name, issue)):
        return
    detail = {"requirement_set_id": requirement_set, "priority": int(priority), "needs": list(needs)}
    facts.record_if_news(fleet, task, Fact(FactKind.REROUTED, detail))
    with fleet.engine.begin() as conn:
        task_details.change(conn, task.id, {"labels": list(issue.labels), "task_type": _task_type(issue.labels)})
    fleet.nudge.soon()


def _hear(fleet: Fleet, task: Task, fact: Fact) -> str:
    heard = facts.record_if_news(fleet, task, fact)
    fleet.nudge.soon()
    return f"{task.task_id} is {heard.state}"


# --- an issue that is none yet ---------------------------------------------------------------------------


def _take_in(fleet: Fleet, forge: Forge, full_name: str, repository_id: int, issue: Issue, rule: Rule) -> str:
    if not issue.open or not _is_wanted(forge, full_name, issue):
        return f"{full_name}#{issue.number} is closed, or has no agent: label and is not assigned to us"
    requester = _requester(forge, full_name, issue)
    if not permissions.may_request(fleet, forge, full_name, issue, requester):
        return f"{full_name}#{issue.number}: whoever labelled it may not write to {full_name}"
    repository = forge.repository(full_name)
    if repository is None or repository.id != repository_id:
        return f"{full_name} cannot be seen with our token"
    text = repository_settings.load_settings(forge, repository, rule)
    renames.save(fleet, forge.name, repository)
    with fleet.engine.begin() as conn:
        task = _make(conn, fleet, forge, repository, issue, text, requester)
    return f"{task.task_id} was made"


def _is_wanted(forge: Forge, full_name: str, issue: Issue) -> bool:
    """By a label, or because somebody assigned it to us; that we assigned it to ourselves says nothing."""
    if matching.required(issue.labels):
        return True
    return forge.is_assigned_to_us(issue) and forge.who_assigned(full_name, issue.number) is not None


def _requester(forge: Forge, full_name: str, issue: Issue) -> Requester | None:
    if matching.required(issue.labels):
        return forge.who_labelled(full_name, issue.number, matching.PREFIX)
    return forge.who_assigned(full_name, issue.number)


def _make(
    conn: Connection,
    fleet: Fleet,
    forge: Forge,
    repository: Repository,
    issue: Issue,
    on: Settings,
    requester: Requester | None,
) -> Task:
    text = issue_text.make_prompt(issue, on)
    needs = matching.required(issue.labels)
    known = tasks.of_issue(conn, forge.name, repository.id, issue.number)
    if known is not None:
        return known
    task_id = _free_id(conn, forge, repository, issue.number)
    task = tasks.request(conn, {
        "task_id": task_id, "mode": Mode.UNDECIDED, "priority": int(priority_of(issue.labels)),
        "requirement_set_id": tasks.requirement_set(conn, needs, on.cli), "forge": forge.name,
        "repository_id": repository.id, "issue_number": issue.number,
        "branch": prompt.branch_name(issue.number, issue.title),
        "wants_pull": True, "max_retries": on.max_retries, "prompt_sha256": text.hash,
    }, fleet.clock())  # fmt: skip
    if task.version == 1:
        views.write_brief(conn, task.id, issue_text.pinned(issue, text) | {
            "source": f"forgejo:{task_id}", "task_type": _task_type(issue.labels), "labels": list(issue.labels),
            "repository": {name: getattr(repository, name) for name in ("full_name", "clone_url", "default_branch")},
            "validation": list(on.validation), "timeout_secs": on.timeout_secs, "requested_by": issue.author.login,
            "settings": on.settings(), "accepted_entry": requester and requester.entry,
        })  # fmt: skip
    return task


def _free_id(conn: Connection, forge: Forge, repository: Repository, number: int) -> str:
    """What people will call the task. Where a repository of the same name on another forge, or one that had this name
    before, has a task that is called so, its forge stands before it, and at the last its own number behind the name."""
    plain = f"{repository.full_name}#{number}"
    named = (plain, f"{forge.name}:{plain}", f"{forge.name}:{repository.full_name}~{repository.id}#{number}")
    return next((name for name in named if not tasks.exists(conn, name)), named[-1])


def priority_of(labels: tuple[str, ...]) -> Priority:
    words = [label.split(":", 1)[1] for label in labels if label.lower().startswith("priority:")]
    return max((Priority.of(word) for word in words), default=Priority.NORMAL)


def _task_type(labels: tuple[str, ...]) -> str:
    return next((matching.capability(label) for label in labels if label.lower().startswith(matching.PREFIX)), "task")
