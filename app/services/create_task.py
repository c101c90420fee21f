"""Takes in work: by an API call here, by what is found on a forge in the rooms beside."""

from typing import Any

from app.domain import matching, prompt
from app.domain.errors import Kind, Refused
from app.domain.task import Priority, Task
from app.domain.visible_text import clean, one_line
from app.ports import Fleet, Repository
from app.services.forge import repository_settings
from app.services.forge.repository_settings import Settings
from app.store import fleet_config, repositories, tasks, views


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
        requirement_set = tasks.requirement_set(conn, needs, on.cli if on else None)
        task = tasks.request(conn, {
            "task_id": tasks.NUMBERED, "mode": asked["execution_mode"], "priority": int(Priority.of(asked["priority"])),
            "requirement_set_id": requirement_set, "forge": forge_name, "repository_id": repository and repository.id,
            "branch": prompt.branch_name("api-{n}", asked["title"]) if repository else None,
            "wants_pull": bool(repository) and asked["wants_pull_request"], "max_retries": asked["max_retries"],
        }, fleet.clock())  # fmt: skip
        views.write_brief(conn, task.id, _brief(asked, text, on, repository))
    fleet.nudge.soon()
    return task


# --- a task by request -----------------------------------------------------------------------------------


def _brief(
    asked: dict[str, Any], text: prompt.Prompt, on: Settings | None, repository: Repository | None
) -> dict[str, Any]:
    shown = repository and {name: getattr(repository, name) for name in ("full_name", "clone_url", "default_branch")}
    return {
        "title": one_line(asked["title"]),
        "requirements": clean(asked["requirements"])[: prompt.LONGEST_BODY],
        "prompt": text.as_json(), "prompt_sha256": text.hash, "repository": shown,
        "validation": list(on.validation) if on else [], "timeout_secs": on.timeout_secs if on else 3600,
        "settings": on.settings() if on else None,
        "source": "api", "task_type": "task", "labels": [], "issue": None, "requested_by": "operator",
    }  # fmt: skip


def _repository_asked_for(fleet: Fleet, full_name: str | None) -> tuple[str | None, Repository | None, Settings | None]:
    """The forge, repository and terms that an API call names; all None where it names none."""
    if full_name is None:
        return None, None, None
    with fleet.engine.begin() as conn:
        found = [(row.name, fleet_config.rule_for(conn, row.name, full_name)) for row in fleet_config.all_forges(conn)]
    for name, rule in found:
        repository = fleet.forges(name).repository(full_name) if rule else None
        if repository and rule:
            with fleet.engine.begin() as conn:
                repositories.save_repository(conn, name, repository)
            return name, repository, repository_settings.load_settings(fleet.forges(name), repository, rule)
    raise Refused(
        Kind.INVALID,
        f"repository: {full_name!r} is not among the repositories of fleet.toml, or cannot be seen.",
    )
