"""Syncs the task of an issue with the forge: creates it, re-routes it, notes edits, ends it, brings it back."""

from sqlalchemy import Connection

from app.domain import matching, prompt
from app.domain.lifecycle import Fact, FactKind
from app.domain.repository import Rule
from app.domain.task import Mode, Priority, State, Task
from app.domain.task_details import AcceptedText, TaskDetails
from app.ports import Fleet, Forge, Issue, Repository, Requester
from app.services import facts
from app.services.forge import issue_text, permissions, pull_requests, renames, repository_settings
from app.services.forge.repository_settings import Settings
from app.store import fleet_config, task_details, tasks, views

WAITING = frozenset({State.CREATED, State.PARKED})


def sync_issue(fleet: Fleet, forge_name: str, full_name: str, repository_id: int, number: int) -> str:
    """Sync the task of an issue with the forge; returns what was found, as a sentence."""
    forge = fleet.forges(forge_name)
    with fleet.engine.begin() as conn:
        rule = fleet_config.rule_for(conn, forge_name, full_name)
        task = tasks.find_by_issue(conn, forge_name, repository_id, number)
    if task is None and rule is not None and not rule.enabled:
        return f"{full_name} is switched off: enabled = false in fleet.toml"
    if rule is None and task is None:
        return f"{full_name} is not among the repositories of fleet.toml"
    issue = forge.issue(full_name, number)
    if issue is None:
        return _record_deletion(fleet, forge, full_name, task) or f"{full_name}#{number} is not an issue"
    if issue.repository_id not in (0, repository_id):
        return _sync_renamed(fleet, forge, full_name, repository_id, number)
    if task is not None:
        return _sync_task(fleet, forge, full_name, task, issue)
    return _create_if_wanted(fleet, forge, full_name, repository_id, issue, rule) if rule else ""


def _sync_renamed(fleet: Fleet, forge: Forge, full_name: str, repository_id: int, number: int) -> str:
    """Another repository has this name now. Sync the issue under the repository's current name, if it has one."""
    name = renames.fetch_name(fleet, forge.name, repository_id)
    if name is None or name == full_name:
        return f"{full_name} is another repository now"
    return sync_issue(fleet, forge.name, name, repository_id, number)


# --- an issue with a task --------------------------------------------------------------------------------


def _sync_task(fleet: Fleet, forge: Forge, full_name: str, task: Task, issue: Issue) -> str:
    if issue.open and _is_wanted(forge, full_name, issue):
        if task.state in (State.CANCELLED, State.FAILED):
            result = _bring_back(fleet, forge, full_name, task, issue)
            if result:
                return result
        _reroute(fleet, forge, full_name, task, issue)
        return issue_text.sync_edit(fleet, forge, full_name, task, issue)
    if task.branch:  # a merge closes the issue too, so look for one first
        pull_requests.record_merge(fleet, task, full_name)
    return _record(fleet, task, Fact(FactKind.LABEL_REMOVED if issue.open else FactKind.ISSUE_CLOSED))


def _record_deletion(fleet: Fleet, forge: Forge, full_name: str, task: Task | None) -> str | None:
    """A deleted issue counts as closed; Forgejo sends no event for it. None if the whole repository is invisible: then
    the issue may only be hidden from us."""
    repository = forge.repository(full_name) if task and task.live else None
    if task is None or repository is None or repository.id != task.repository_id:
        return None
    return _record(fleet, task, Fact(FactKind.ISSUE_CLOSED, {"deleted": True}))


def _record(fleet: Fleet, task: Task, fact: Fact) -> str:
    now = facts.record_if_news(fleet, task, fact)
    fleet.nudge.soon()
    return f"{task.task_id} is {now.state}"


def _bring_back(fleet: Fleet, forge: Forge, full_name: str, task: Task, issue: Issue) -> str | None:
    """Bring back an ended task, with the text as it is now, if a person with write permission requested it: by a new
    label, or by reopening the issue. Its author may reopen it without that permission, and edit it before.

    Returns what was done; None for a failed task that was not requested again.
    """
    requester = _requester(forge, full_name, issue)
    with fleet.engine.begin() as conn:
        accepted_entry = task_details.get(conn, task.id).accepted_entry or 0
    if requester and requester.entry > accepted_entry:
        may = permissions.may_request(fleet, forge, full_name, issue, requester)
    elif task.state is State.FAILED:
        return None
    else:
        requester = forge.who_reopened(full_name, issue.number)
        may = requester is not None and _may_reopen(fleet, forge, full_name, requester)
    if not may:
        return f"{task.task_id} was requested again by an account that may not write to {full_name}"
    key = f"wanted {requester.entry}" if requester and task.state is State.FAILED else None
    fact = Fact(FactKind.ISSUE_WANTED, key=key)
    now = issue_text.accept_with_fact(fleet, forge, full_name, task, issue, requester, fact)
    fleet.nudge.soon()
    return f"{task.task_id} is {now.state}"


def _may_reopen(fleet: Fleet, forge: Forge, full_name: str, requester: Requester) -> bool:
    account = requester.account
    return permissions.is_accepted(fleet, forge, account) and permissions.may_write(forge, full_name, account.login)


def _reroute(fleet: Fleet, forge: Forge, full_name: str, task: Task, issue: Issue) -> None:
    """Changed labels of a waiting task change who may take it, and when."""
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
        task_details.set_labels(conn, task.id, issue.labels, _task_type(issue.labels))
    fleet.nudge.soon()


# --- an issue without a task -----------------------------------------------------------------------------


def _create_if_wanted(fleet: Fleet, forge: Forge, full_name: str, repository_id: int, issue: Issue, rule: Rule) -> str:
    if not issue.open or not _is_wanted(forge, full_name, issue):
        return f"{full_name}#{issue.number} is closed, or has no agent: label and is not assigned to the bot"
    requester = _requester(forge, full_name, issue)
    if not permissions.may_request(fleet, forge, full_name, issue, requester):
        return f"{full_name}#{issue.number}: the account that labelled it may not write to {full_name}"
    repository = forge.repository(full_name)
    if repository is None or repository.id != repository_id:
        return f"the bot's token cannot see {full_name}"
    settings = repository_settings.load_settings(forge, repository, rule)
    renames.save(fleet, forge.name, repository)
    with fleet.engine.begin() as conn:
        task = _create(conn, fleet, forge, repository, issue, settings, requester)
    return f"{task.task_id} was created"


def _is_wanted(forge: Forge, full_name: str, issue: Issue) -> bool:
    """Whether an issue has an `agent:` label, or another account assigned it to us."""
    if matching.required(issue.labels):
        return True
    return forge.is_assigned_to_us(issue) and forge.who_assigned(full_name, issue.number) is not None


def _requester(forge: Forge, full_name: str, issue: Issue) -> Requester | None:
    if matching.required(issue.labels):
        return forge.who_labelled(full_name, issue.number, matching.PREFIX)
    return forge.who_assigned(full_name, issue.number)


def _create(
    conn: Connection,
    fleet: Fleet,
    forge: Forge,
    repository: Repository,
    issue: Issue,
    settings: Settings,
    requester: Requester | None,
) -> Task:
    known = tasks.find_by_issue(conn, forge.name, repository.id, issue.number)
    if known is not None:
        return known
    text = issue_text.make_text(issue, settings)
    task_id = _free_task_id(conn, forge, repository, issue.number)
    needs = matching.required(issue.labels)
    task = tasks.create(conn, {
        "task_id": task_id, "mode": Mode.UNDECIDED, "priority": int(priority_of(issue.labels)),
        "requirement_set_id": tasks.requirement_set(conn, needs, settings.cli), "forge": forge.name,
        "repository_id": repository.id, "issue_number": issue.number,
        "branch": prompt.branch_name(issue.number, issue.title), "wants_pull": True,
        "max_retries": settings.max_retries, "prompt_sha256": text.prompt.hash,
    }, fleet.clock())  # fmt: skip
    if task.version == 1:
        task_details.add(conn, task.id, _details(task_id, repository, issue, text, settings, requester))
    return task


def _details(
    task_id: str,
    repository: Repository,
    issue: Issue,
    text: AcceptedText,
    settings: Settings,
    requester: Requester | None,
) -> TaskDetails:
    return TaskDetails(
        text=text,
        source=f"forgejo:{task_id}",
        task_type=_task_type(issue.labels),
        labels=issue.labels,
        repository=repository.as_json(),
        validation=settings.validation,
        timeout_secs=settings.timeout_secs,
        requested_by=issue.author.login,
        accepted_entry=requester.entry if requester else None,
        settings=settings.task,
    )


def _free_task_id(conn: Connection, forge: Forge, repository: Repository, number: int) -> str:
    """`owner/repo#12`. If another repository of this name has taken that, `forge:owner/repo#12`, and if that is taken
    too, `forge:owner/repo~id#12`."""
    plain = f"{repository.full_name}#{number}"
    names = (plain, f"{forge.name}:{plain}", f"{forge.name}:{repository.full_name}~{repository.id}#{number}")
    return next((name for name in names if not tasks.exists(conn, name)), names[-1])


def priority_of(labels: tuple[str, ...]) -> Priority:
    """The highest priority that `priority:` labels name."""
    words = [label.split(":", 1)[1] for label in labels if label.lower().startswith("priority:")]
    return max((Priority.of(word) for word in words), default=Priority.NORMAL)


def _task_type(labels: tuple[str, ...]) -> str:
    return next((matching.capability(label) for label in labels if label.lower().startswith(matching.PREFIX)), "task")
