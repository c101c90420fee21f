"""Accepts the text of an issue that a task works on, and notes later edits until a writer accepts them."""

from collections.abc import Callable

from sqlalchemy import Connection

from app.domain import matching, prompt
from app.domain.event import Event
from app.domain.lifecycle import Fact, FactKind
from app.domain.prompt import Prompt
from app.domain.task import State, Task
from app.domain.task_details import AcceptedText
from app.domain.visible_text import clean, one_line
from app.ports import Fleet, Forge, Issue, Repository, Requester
from app.services import facts
from app.services.forge import permissions, repository_settings
from app.services.forge.repository_settings import Settings
from app.store import events, fleet_config, repositories, task_details, tasks


def make_text(issue: Issue, settings: Settings) -> AcceptedText:
    """The text of an issue as it is now, with its prompt."""
    title = one_line(issue.title)
    return AcceptedText(
        title=title,
        requirements=clean(issue.body)[: prompt.LONGEST_BODY],
        prompt=_make_prompt(issue, settings),
        issue_sha256=prompt.fingerprint(issue.title, issue.body),
        issue={"number": issue.number, "title": title, "url": issue.url},
    )


def _make_prompt(issue: Issue, settings: Settings) -> Prompt:
    forbidden = settings.task.forbidden_paths
    return prompt.read_issue(issue.title, issue.body, settings.validation, settings.rules, forbidden)


# --- edits -----------------------------------------------------------------------------------------------


def find_edit(fleet: Fleet, forge: Forge, full_name: str, task: Task) -> Issue | None:
    """The issue, if its text differs from the accepted one; else None."""
    issue = forge.issue(full_name, task.issue_number) if task.issue_number else None
    with fleet.engine.begin() as conn:
        accepted = task_details.get(conn, task.id).text.issue_sha256
    if issue is None or accepted in (None, prompt.fingerprint(issue.title, issue.body)):
        return None
    return issue


def sync_edit(fleet: Fleet, forge: Forge, full_name: str, task: Task, issue: Issue) -> str:
    """Note an edit of the issue, or accept one that was noted, if a person with write permission has put the label on
    anew since. Returns what was done, as a sentence."""
    if task.state is State.COMPLETED or find_edit(fleet, forge, full_name, task) is None:
        return f"{task.task_id} is known and {task.state}"
    sha = prompt.fingerprint(issue.title, issue.body)
    with fleet.engine.begin() as conn:
        accepted_entry = task_details.get(conn, task.id).accepted_entry or 0
        noted = [note.detail["sha"] for note in _noted_edits(conn, task)]
    if sha not in noted:
        _note_edit(fleet, forge, full_name, task, sha)
        return f"{task.task_id} was edited; work goes on with the accepted text"
    requester = forge.who_labelled(full_name, issue.number, matching.PREFIX)
    if requester is None or requester.entry <= accepted_entry:
        return f"{task.task_id} was edited, and no person with write permission has accepted the new text"
    if not permissions.may_request(fleet, forge, full_name, issue, requester):
        return (
            f"{task.task_id} was edited, and {requester.account.login}, who labelled it, may not write to {full_name}"
        )
    accept_edit(fleet, forge, full_name, task, issue, requester.account.login, f"entry {requester.entry}")
    return f"{task.task_id} works on its new text"


def accept_edit(
    fleet: Fleet,
    forge: Forge,
    full_name: str,
    task: Task,
    issue: Issue,
    by: str,
    key: str,
    saw: Callable[[Event], bool] = lambda _: True,
) -> bool:
    """Work on the text as it is now, because `by` accepted it.

    False if `by` did not see (`saw`) the note about this very text. So no text can be slipped in between the edit that
    a person has read and the acceptance.
    """
    at, sha = fleet.clock(), prompt.fingerprint(issue.title, issue.body)
    with fleet.engine.begin() as conn:
        notes = [note for note in _noted_edits(conn, task) if note.detail["sha"] == sha]
    if not notes:
        _note_edit(fleet, forge, full_name, task, sha)
    settings = _settings(fleet, forge, full_name, task) if any(saw(note) for note in notes) else None
    if settings is None:
        return False
    text = make_text(issue, settings)
    fact = Fact(FactKind.TEXT_ACCEPTED, {"by": by, "sha": sha, "prompt": text.prompt.hash}, key=key)
    with fleet.engine.begin() as conn:
        task_details.set_text(conn, task.id, text)
        tasks.record(conn, task.id, fact, at)
    return True


def accept_with_fact(
    fleet: Fleet, forge: Forge, full_name: str, task: Task, issue: Issue, requester: Requester | None, fact: Fact
) -> Task:
    """Record the `fact` that brings a task back, and accept the text as it is now in the same transaction.

    So no runner can get the task with its old text.
    """
    settings = _settings(fleet, forge, full_name, task)
    if settings is None:
        return facts.record_if_news(fleet, task, fact)
    text = make_text(issue, settings)

    def accept(conn: Connection) -> None:
        task_details.set_text(conn, task.id, text)
        task_details.set_accepted_entry(conn, task.id, requester.entry if requester else None)

    return facts.record_if_news(fleet, task, fact, accept)


def ignore_earlier_labels(fleet: Fleet, forge: Forge, full_name: str, task: Task) -> None:
    """Labels that were put on so far requested the attempt that is over. Only a later one requests a new attempt."""
    requester = forge.who_labelled(full_name, task.issue_number or 0, matching.PREFIX)
    if requester:
        with fleet.engine.begin() as conn:
            task_details.set_accepted_entry(conn, task.id, requester.entry)


def _note_edit(fleet: Fleet, forge: Forge, full_name: str, task: Task, sha: str) -> None:
    requester = forge.who_labelled(full_name, task.issue_number or 0, matching.PREFIX)
    with fleet.engine.begin() as conn:
        task_details.set_accepted_entry(conn, task.id, requester.entry if requester else 0)
    detail = {"sha": sha, "noted_at": forge.server_time()}
    facts.record_if_news(fleet, task, Fact(FactKind.ISSUE_EDITED, detail, key=f"edit {sha}"))


def _noted_edits(conn: Connection, task: Task) -> list[Event]:
    """The events of edits that were noted and not accepted at once."""
    return events.of_kinds(conn, task.id, (FactKind.ISSUE_EDITED,))


def _settings(fleet: Fleet, forge: Forge, full_name: str, task: Task) -> Settings | None:
    """The settings of a task's repository; None if no rule fits it any more."""
    with fleet.engine.begin() as conn:
        rule = fleet_config.rule_for(conn, forge.name, full_name)
        known = repositories.repository(conn, forge.name, task.repository_id)
    if rule is None or known is None:
        return None
    repository = Repository(known.id, full_name, known.clone_url, known.default_branch)
    return repository_settings.load_settings(forge, repository, rule)
