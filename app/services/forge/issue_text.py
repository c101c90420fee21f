"""The text of an issue that is worked on: pinned when it is accepted, changed when somebody with the right says so."""

from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import Connection

from app.domain import matching, prompt
from app.domain.lifecycle import Fact, FactKind
from app.domain.task import State, Task
from app.domain.visible_text import clean, one_line
from app.ports import Fleet, Forge, Issue, Repository, Requester
from app.services import facts
from app.services.forge import permissions, repository_settings
from app.services.forge.repository_settings import Settings
from app.store import fleet_config, repositories, task_details, tasks, views


def find_edit(fleet: Fleet, forge: Forge, full_name: str, task: Task) -> Issue | None:
    """The issue, if its text is another one than the task's accepted text; None where nothing was edited."""
    issue = forge.issue(full_name, task.issue_number) if task.issue_number else None
    with fleet.engine.begin() as conn:
        brief = views.brief(conn, task.id)
    if issue is None or brief["issue_sha256"] in (None, prompt.fingerprint(issue.title, issue.body)):
        return None
    return issue


def accept_edit(
    fleet: Fleet,
    forge: Forge,
    full_name: str,
    task: Task,
    issue: Issue,
    by: str,
    key: str,
    saw: Callable[[Mapping[str, Any]], bool] = lambda _: True,
) -> bool:
    """Work on the text as it is now, since somebody with the right said so; but only on one whose edit was noted and
    who `saw` that note, so that nobody slips in another text between. False where that is not so."""
    at, sha = fleet.clock(), prompt.fingerprint(issue.title, issue.body)
    with fleet.engine.begin() as conn:
        notes = [note for note in _notes(conn, task) if note["detail"]["sha"] == sha]
        rule, repository = fleet_config.rule_for(conn, forge.name, full_name), _known(conn, forge, task, full_name)
    if not notes:
        _note(fleet, forge, full_name, task, sha)
    if not any(saw(note) for note in notes):
        return False
    if rule is None or repository is None:
        return False
    text = make_prompt(issue, repository_settings.load_settings(forge, repository, rule))
    with fleet.engine.begin() as conn:
        task_details.change(conn, task.id, pinned(issue, text))
        tasks.record(
            conn, task.id, Fact(FactKind.TEXT_ACCEPTED, {"by": by, "sha": sha, "prompt": text.hash}, key=key), at
        )
    return True


def apply_edit(fleet: Fleet, forge: Forge, full_name: str, task: Task, issue: Issue) -> str:
    """An edit is noted, and counts when somebody with the right says so: by a label put on anew, or by a command."""
    if task.state is State.COMPLETED or find_edit(fleet, forge, full_name, task) is None:
        return f"{task.task_id} is known and {task.state}"
    sha = prompt.fingerprint(issue.title, issue.body)
    with fleet.engine.begin() as conn:
        brief = views.brief(conn, task.id)
        noted = [note["detail"]["sha"] for note in _notes(conn, task)]
    if sha not in noted:
        _note(fleet, forge, full_name, task, sha)
        return f"{task.task_id} was edited; work goes on with the text as it was"
    requester = forge.who_labelled(full_name, issue.number, matching.PREFIX)
    if requester is None or requester.entry <= (brief["accepted_entry"] or 0):
        return f"{task.task_id} was edited, and nobody with the right has said that the new text counts"
    if not permissions.may_request(fleet, forge, full_name, issue, requester):
        return f"{task.task_id} was edited, and whoever labelled it anew may not write to {full_name}"
    accept_edit(fleet, forge, full_name, task, issue, requester.account.login, f"entry {requester.entry}")
    return f"{task.task_id} is worked on by its new text"


def accept_with_fact(
    fleet: Fleet, forge: Forge, full_name: str, task: Task, issue: Issue, requester: Requester | None, fact: Fact
) -> Task:
    """Work on the text as it is now, with the `fact` that brings the task back: nobody can have it before its text."""
    with fleet.engine.begin() as conn:
        rule, repository = fleet_config.rule_for(conn, forge.name, full_name), _known(conn, forge, task, full_name)
    if rule is None or repository is None:
        return facts.record_if_news(fleet, task, fact)
    text = make_prompt(issue, repository_settings.load_settings(forge, repository, rule))

    def changed(conn: Connection) -> None:
        task_details.change(conn, task.id, pinned(issue, text) | {"accepted_entry": requester and requester.entry})

    return facts.record_if_news(fleet, task, fact, changed)


def ignore_earlier_labels(fleet: Fleet, forge: Forge, full_name: str, task: Task) -> None:
    """Whoever has put a label there so far wanted the attempt that is over: only one that comes after it asks anew."""
    requester = forge.who_labelled(full_name, task.issue_number or 0, matching.PREFIX)
    if requester:
        with fleet.engine.begin() as conn:
            task_details.change(conn, task.id, {"accepted_entry": requester.entry})


def pinned(issue: Issue, text: prompt.Prompt) -> dict[str, Any]:
    """What is pinned of an issue when its text is accepted."""
    title = one_line(issue.title)
    return {
        "title": title,
        "requirements": clean(issue.body)[: prompt.LONGEST_BODY],
        "prompt": text.as_json(),
        "prompt_sha256": text.hash,
        "issue_sha256": prompt.fingerprint(issue.title, issue.body),
        "issue": {"number": issue.number, "title": title, "url": issue.url},
    }


def make_prompt(issue: Issue, on: Settings) -> prompt.Prompt:
    return prompt.read_issue(issue.title, issue.body, on.validation, on.rules, on.forbidden_paths)


def _note(fleet: Fleet, forge: Forge, full_name: str, task: Task, sha: str) -> None:
    requester = forge.who_labelled(full_name, task.issue_number or 0, matching.PREFIX)
    with fleet.engine.begin() as conn:
        task_details.change(conn, task.id, {"accepted_entry": requester.entry if requester else 0})
    detail = {"sha": sha, "noted_at": forge.server_time()}
    facts.record_if_news(fleet, task, Fact(FactKind.ISSUE_EDITED, detail, key=f"edit {sha}"))


def _notes(conn: Connection, task: Task) -> list[dict[str, Any]]:
    """The edits of which it was said that they do not count yet."""
    return views.events_of(conn, task.id, (FactKind.ISSUE_EDITED,))


def _known(conn: Connection, forge: Forge, task: Task, full_name: str) -> Repository | None:
    row = repositories.repository(conn, forge.name, task.repository_id or 0)
    return Repository(row.id, full_name, row.clone_url, row.default_branch) if row else None
