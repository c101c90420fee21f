"""Takes in work: a delivery is a hint where to look, the forge says what is so, and a task is made or moved."""

from datetime import timedelta
from typing import Any

import structlog

from app.domain import matching, prompt
from app.domain.errors import Kind, Refused, Unavailable
from app.domain.task import Priority, Task
from app.forgejo import payloads
from app.forgejo.payloads import Hint
from app.ports import Fleet, Repository
from app.services import obey, review, rights, terms
from app.services.issues import look_at_issue
from app.services.terms import Terms
from app.store import briefs, deliveries, places, tasks, views
from app.store.tables import Row

__all__ = ["apply_deliveries", "look_at_issue", "request"]

log = structlog.get_logger()


def apply_deliveries(fleet: Fleet) -> int:
    """Apply waiting deliveries, oldest first, then the commands that they brought; returns how many of both were looked
    at. What the forge cannot answer now waits; what can never be applied says why."""
    with fleet.engine.begin() as conn:
        waiting = deliveries.take(conn, fleet.clock())
    for delivery in waiting:
        _apply(fleet, delivery)
    return len(waiting) + obey.obey(fleet)


def sweep(fleet: Fleet) -> int:
    """Forget deliveries that were applied long ago."""
    with fleet.engine.begin() as conn:
        return deliveries.sweep(conn, fleet.clock() - timedelta(days=fleet.config.keep_deliveries_days))


def request(fleet: Fleet, asked: dict[str, Any]) -> Task:
    """A task by API call. `asked` has title, requirements, repository?, required_capabilities, priority,
    execution_mode, max_retries, wants_pull_request. Raises Refused."""
    forge_name, repository, on = _repository_asked_for(fleet, asked["repository"])
    text = prompt.read_issue(
        asked["title"], asked["requirements"], on.validation if on else (), on.rules if on else "",
        on.forbidden_paths if on else (),
    )  # fmt: skip
    needs = tuple(sorted({matching.capability(word) for word in asked["required_capabilities"]} - {""}))
    with fleet.engine.begin() as conn:
        capset = tasks.capset(conn, needs, on.cli if on else None)
        task = tasks.request(conn, {
            "task_id": tasks.NUMBERED, "mode": asked["execution_mode"], "priority": int(Priority.of(asked["priority"])),
            "capset_id": capset, "forge": forge_name, "repository_id": repository and repository.id,
            "branch": prompt.branch_name("api-{n}", asked["title"]) if repository else None,
            "wants_pull": bool(repository) and asked["wants_pull_request"], "max_retries": asked["max_retries"],
        }, fleet.clock())  # fmt: skip
        views.write_brief(conn, task.id, _brief(asked, text, on, repository))
    fleet.nudge.soon()
    return task


# --- one delivery ----------------------------------------------------------------------------------------


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
    if hint.test:
        return "applied", "a test delivery: the hook reaches us"
    if _is_noise(fleet, delivery["forge"], hint):
        return "ignored", f"{hint.sender.login} is ourselves, or a bot that `bots` in fleet.toml does not name"
    if hint.said:
        obey.hear(fleet, delivery["forge"], hint)
    if hint.number is None:
        return _look_at_branch(fleet, delivery, hint)
    if not hint.is_pull:
        return "applied", look_at_issue(fleet, delivery["forge"], hint.full_name, hint.repository_id, hint.number)
    return _look_at_pull(fleet, delivery["forge"], hint, hint.number)


def _is_noise(fleet: Fleet, forge_name: str, hint: Hint) -> bool:
    """Our own echo, and bots that nobody invited. An agent may have pushed or opened a pull request in our name, and
    what bots do to branches and checks is as true as what people do: those are looked at all the same."""
    return not hint.echoes and not rights.is_heard(fleet, fleet.forges(forge_name), hint.sender)


def _look_at_pull(fleet: Fleet, forge_name: str, hint: Hint, number: int) -> tuple[str, str]:
    with fleet.engine.begin() as conn:
        task = tasks.of_pull(conn, forge_name, hint.repository_id, number, hint.branch or "")
    if task is None:
        return "ignored", f"pull request {number} belongs to no task"
    return "applied", review.look_at_pull(fleet, task, hint.full_name, number)


def _look_at_branch(fleet: Fleet, delivery: Row, hint: Hint) -> tuple[str, str]:
    """A push, a branch that came or went, or checks that ended: something is going on with the task of that branch."""
    with fleet.engine.begin() as conn:
        task = tasks.of_branch(conn, delivery["forge"], hint.repository_id, hint.branch, hint.sha)
        if task is None:
            return "ignored", f"no task works on {hint.branch or hint.sha or 'a tag'}"
        briefs.active(conn, task.id, delivery["received_at"])
    return "applied", review.look_at_pull(fleet, task, hint.full_name, task.pr_number)


# --- a task by request -----------------------------------------------------------------------------------


def _brief(
    asked: dict[str, Any], text: prompt.Prompt, on: Terms | None, repository: Repository | None
) -> dict[str, Any]:
    shown = repository and {name: getattr(repository, name) for name in ("full_name", "clone_url", "default_branch")}
    return {
        "title": prompt.one_line(asked["title"]),
        "requirements": prompt.clean(asked["requirements"])[: prompt.LONGEST_BODY],
        "prompt": text.as_json(), "prompt_sha256": text.hash, "repository": shown,
        "validation": list(on.validation) if on else [], "timeout_secs": on.timeout_secs if on else 3600,
        "settings": on.settings() if on else None,
        "source": "api", "task_type": "task", "labels": [], "issue": None, "asked_by": "operator",
    }  # fmt: skip


def _repository_asked_for(fleet: Fleet, full_name: str | None) -> tuple[str | None, Repository | None, Terms | None]:
    """The forge, repository and terms that an API call names; all None where it names none."""
    if full_name is None:
        return None, None, None
    with fleet.engine.begin() as conn:
        found = [(row["name"], places.rule_for(conn, row["name"], full_name)) for row in places.all_forges(conn)]
    for name, rule in found:
        repository = fleet.forges(name).repository(full_name) if rule else None
        if repository and rule:
            with fleet.engine.begin() as conn:
                places.remember_repository(conn, name, vars(repository))
            return name, repository, terms.of(fleet.forges(name), repository, rule)
    raise Refused(
        Kind.INVALID,
        f"repository: {full_name!r} is not among the repositories of fleet.toml, or cannot be seen.",
    )
