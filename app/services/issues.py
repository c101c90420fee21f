"""Brings the task of an issue in line with the forge: made, re-routed, its edits noted, ended, brought back."""

from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import Connection

from app.domain import matching, people, prompt
from app.domain.lifecycle import Fact, What
from app.domain.task import Mode, Priority, State, Task
from app.ports import Asker, Fleet, Forge, Issue, Repository
from app.services import review, terms
from app.services.terms import Terms
from app.store import briefs, places, tasks, views
from app.store.tables import Row

WAITING = frozenset({State.CREATED, State.PARKED})


def look_at_issue(fleet: Fleet, forge_name: str, full_name: str, repository_id: int, number: int) -> str:
    """Bring the task of an issue in line with the forge; returns what was found, as a sentence."""
    forge = fleet.forges(forge_name)
    with fleet.engine.begin() as conn:
        rule = places.rule_for(conn, forge_name, full_name)
        task = tasks.of_issue(conn, forge_name, repository_id, number)
    if rule is None and task is None:
        return f"{full_name} is not among the repositories of fleet.toml"
    issue = forge.issue(full_name, number)
    if issue is None:
        return f"{full_name}#{number} is not an issue"
    if task is not None:
        return _follow(fleet, forge, full_name, task, issue)
    return _take_in(fleet, forge, full_name, repository_id, issue, rule) if rule else ""


def edited_text(fleet: Fleet, forge: Forge, full_name: str, task: Task) -> Issue | None:
    """The issue, if its text is another one than the task's accepted text; None where nothing was edited."""
    issue = forge.issue(full_name, task.issue_number) if task.issue_number else None
    with fleet.engine.begin() as conn:
        brief = views.brief(conn, task.id)
    if issue is None or brief["issue_sha256"] in (None, prompt.fingerprint(issue.title, issue.body)):
        return None
    return issue


def accept(
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
        rule, repository = places.rule_for(conn, forge.name, full_name), _known(conn, forge, task, full_name)
    if not notes:
        _note(fleet, forge, full_name, task, sha)
    if not any(saw(note) for note in notes):
        return False
    if rule is None or repository is None:
        return False
    text = _text(issue, terms.of(forge, repository, rule))
    with fleet.engine.begin() as conn:
        briefs.change(conn, task.id, _texts(issue, text))
        tasks.record(conn, task.id, Fact(What.TEXT_ACCEPTED, {"by": by, "sha": sha, "prompt": text.hash}, key=key), at)
    return True


# --- an issue that is a task already ---------------------------------------------------------------------


def _follow(fleet: Fleet, forge: Forge, full_name: str, task: Task, issue: Issue) -> str:
    """Hear what became of the issue. A merge is looked for first, since it closes the issue too."""
    if issue.open and _is_wanted(forge, full_name, issue):
        if task.state is State.CANCELLED:
            return _bring_back(fleet, forge, full_name, task, issue)
        _reroute(fleet, forge, full_name, task, issue)
        return _heed_edit(fleet, forge, full_name, task, issue)
    if task.branch:
        review.look_at_pull(fleet, task, full_name, task.pr_number)
    fact = Fact(What.LABEL_REMOVED if issue.open else What.ISSUE_CLOSED)
    return _hear(fleet, task, fact)


def _bring_back(fleet: Fleet, forge: Forge, full_name: str, task: Task, issue: Issue) -> str:
    """Whoever wants it again, wants it as it reads now."""
    asker = _asker(forge, full_name, issue)
    if not _may_ask(fleet, forge, full_name, issue, asker):
        return f"{task.task_id}: whoever labelled it may not write to {full_name}"
    heard = review.hear(fleet, task, Fact(What.ISSUE_WANTED))
    if heard.state is State.CREATED and heard.version > task.version:
        _take_text(fleet, forge, full_name, task, issue, asker)
    fleet.nudge.soon()
    return f"{task.task_id} is {heard.state}"


def _take_text(fleet: Fleet, forge: Forge, full_name: str, task: Task, issue: Issue, asker: Asker | None) -> None:
    with fleet.engine.begin() as conn:
        rule, repository = places.rule_for(conn, forge.name, full_name), _known(conn, forge, task, full_name)
    if rule is None or repository is None:
        return
    text = _text(issue, terms.of(forge, repository, rule))
    with fleet.engine.begin() as conn:
        briefs.change(conn, task.id, _texts(issue, text) | {"accepted_entry": asker and asker.entry})


def _reroute(fleet: Fleet, forge: Forge, full_name: str, task: Task, issue: Issue) -> None:
    """Labels that changed while the task waits change who may take it, and when."""
    if task.state not in WAITING:
        return
    with fleet.engine.begin() as conn:
        had, cli = views.needs(conn, task.capset_id)
        needs, priority = matching.required(issue.labels), priority_of(issue.labels)
        if (tuple(had), task.priority) == (needs, priority):
            return
        capset = tasks.capset(conn, needs, cli)
    if not _may_ask(fleet, forge, full_name, issue, _asker(forge, full_name, issue)):
        return
    detail = {"capset_id": capset, "priority": int(priority), "needs": list(needs)}
    review.hear(fleet, task, Fact(What.REROUTED, detail))
    with fleet.engine.begin() as conn:
        briefs.change(conn, task.id, {"labels": list(issue.labels), "task_type": _task_type(issue.labels)})
    fleet.nudge.soon()


def _heed_edit(fleet: Fleet, forge: Forge, full_name: str, task: Task, issue: Issue) -> str:
    """An edit is noted, and counts when somebody with the right says so: by a label put on anew, or by a command."""
    if task.state is State.COMPLETED or edited_text(fleet, forge, full_name, task) is None:
        return f"{task.task_id} is known and {task.state}"
    sha = prompt.fingerprint(issue.title, issue.body)
    with fleet.engine.begin() as conn:
        brief = views.brief(conn, task.id)
        noted = [note["detail"]["sha"] for note in _notes(conn, task)]
    if sha not in noted:
        _note(fleet, forge, full_name, task, sha)
        return f"{task.task_id} was edited; work goes on with the text as it was"
    asker = forge.who_labelled(full_name, issue.number, matching.PREFIX)
    if asker is None or asker.entry <= (brief["accepted_entry"] or 0):
        return f"{task.task_id} was edited, and nobody with the right has said that the new text counts"
    if not _may_ask(fleet, forge, full_name, issue, asker):
        return f"{task.task_id} was edited, and whoever labelled it anew may not write to {full_name}"
    accept(fleet, forge, full_name, task, issue, asker.who.login, f"entry {asker.entry}")
    return f"{task.task_id} is worked on by its new text"


def _note(fleet: Fleet, forge: Forge, full_name: str, task: Task, sha: str) -> None:
    asker = forge.who_labelled(full_name, task.issue_number or 0, matching.PREFIX)
    with fleet.engine.begin() as conn:
        briefs.change(conn, task.id, {"accepted_entry": asker.entry if asker else 0})
    detail = {"sha": sha, "noted_at": forge.moment()}
    review.hear(fleet, task, Fact(What.ISSUE_EDITED, detail, key=f"edit {sha}"))


def _notes(conn: Connection, task: Task) -> list[dict[str, Any]]:
    """The edits of which it was said that they do not count yet."""
    return [event for event in views.event_list(conn, task.id) if event["fact"] == What.ISSUE_EDITED]


def _hear(fleet: Fleet, task: Task, fact: Fact) -> str:
    heard = review.hear(fleet, task, fact)
    fleet.nudge.soon()
    return f"{task.task_id} is {heard.state}"


# --- an issue that is none yet ---------------------------------------------------------------------------


def _take_in(fleet: Fleet, forge: Forge, full_name: str, repository_id: int, issue: Issue, rule: Row) -> str:
    if not issue.open or not _is_wanted(forge, full_name, issue):
        return f"{full_name}#{issue.number} is closed, or has no agent: label and is not assigned to us"
    asker = _asker(forge, full_name, issue)
    if not _may_ask(fleet, forge, full_name, issue, asker):
        return f"{full_name}#{issue.number}: whoever labelled it may not write to {full_name}"
    repository = forge.repository(full_name)
    if repository is None or repository.id != repository_id:
        return f"{full_name} cannot be seen with our token"
    text = terms.of(forge, repository, rule)
    with fleet.engine.begin() as conn:
        task = _make(conn, fleet, forge, repository, issue, text, asker)
    return f"{task.task_id} was made"


def _is_wanted(forge: Forge, full_name: str, issue: Issue) -> bool:
    """By a label, or because somebody assigned it to us; that we assigned it to ourselves says nothing."""
    if matching.required(issue.labels):
        return True
    return forge.is_assigned(issue) and forge.who_assigned(full_name, issue.number) is not None


def _asker(forge: Forge, full_name: str, issue: Issue) -> Asker | None:
    if matching.required(issue.labels):
        return forge.who_labelled(full_name, issue.number, matching.PREFIX)
    return forge.who_assigned(full_name, issue.number)


def _may_ask(fleet: Fleet, forge: Forge, full_name: str, issue: Issue, asker: Asker | None) -> bool:
    """Only people who may write start work: whoever put the label there, else who opened the issue with it; and no bot
    that was not invited.

    Where our token may not ask, the label itself is the proof: Forgejo drops labels of those who may not write.
    """
    who = asker.who if asker else issue.author
    with fleet.engine.begin() as conn:
        row = places.forge(conn, forge.name)
    if not people.is_heard(who.login, who.id, who.full_name, forge.bot().id, row["bots"] if row else ()):
        return False
    return forge.may_write(full_name, who.login) is not False


def _known(conn: Connection, forge: Forge, task: Task, full_name: str) -> Repository | None:
    row = places.repository(conn, forge.name, task.repository_id or 0)
    return Repository(row["id"], full_name, row["clone_url"], row["default_branch"]) if row else None


def _make(
    conn: Connection, fleet: Fleet, forge: Forge, repository: Repository, issue: Issue, on: Terms, asker: Asker | None
) -> Task:
    task_id = f"{repository.full_name}#{issue.number}"
    text = _text(issue, on)
    needs = matching.required(issue.labels)
    known = tasks.of_issue(conn, forge.name, repository.id, issue.number)
    if known is not None:
        return known
    places.remember_repository(conn, forge.name, vars(repository))
    task = tasks.request(conn, {
        "task_id": task_id, "mode": Mode.UNDECIDED, "priority": int(priority_of(issue.labels)),
        "capset_id": tasks.capset(conn, needs, on.cli), "forge": forge.name, "repository_id": repository.id,
        "issue_number": issue.number, "branch": prompt.branch_name(issue.number, issue.title),
        "wants_pull": True, "max_retries": on.max_retries, "prompt_sha256": text.hash,
    }, fleet.clock())  # fmt: skip
    if task.version == 1:
        views.write_brief(conn, task.id, _texts(issue, text) | {
            "source": f"forgejo:{task_id}", "task_type": _task_type(issue.labels), "labels": list(issue.labels),
            "repository": {name: getattr(repository, name) for name in ("full_name", "clone_url", "default_branch")},
            "validation": list(on.validation), "timeout_secs": on.timeout_secs, "asked_by": issue.author.login,
            "settings": on.settings(), "accepted_entry": asker and asker.entry,
        })  # fmt: skip
    return task


def _text(issue: Issue, on: Terms) -> prompt.Prompt:
    return prompt.read_issue(issue.title, issue.body, on.validation, on.rules, on.forbidden_paths)


def _texts(issue: Issue, text: prompt.Prompt) -> dict[str, Any]:
    """What is pinned of an issue when its text is accepted."""
    title = prompt.one_line(issue.title)
    return {
        "title": title,
        "requirements": prompt.clean(issue.body)[: prompt.LONGEST_BODY],
        "prompt": text.as_json(),
        "prompt_sha256": text.hash,
        "issue_sha256": prompt.fingerprint(issue.title, issue.body),
        "issue": {"number": issue.number, "title": title, "url": issue.url},
    }


def priority_of(labels: tuple[str, ...]) -> Priority:
    words = [label.split(":", 1)[1] for label in labels if label.lower().startswith("priority:")]
    return max((Priority.of(word) for word in words), default=Priority.NORMAL)


def _task_type(labels: tuple[str, ...]) -> str:
    return next((matching.capability(label) for label in labels if label.lower().startswith(matching.PREFIX)), "task")
