"""Creates a task from an API request."""

from typing import TypedDict

from app.domain import matching, prompt
from app.domain.errors import Kind, Refused
from app.domain.task import Priority, Task
from app.domain.task_details import AcceptedText, TaskDetails, TaskSettings
from app.domain.visible_text import clean, one_line
from app.ports import Fleet, Repository
from app.services.forge import repository_settings
from app.services.forge.repository_settings import Settings
from app.store import fleet_config, repositories, task_details, tasks

DEFAULT_TIMEOUT_SECS = 3600


class TaskRequest(TypedDict):
    """The checked body of POST /tasks. `repository` is a full name on a forge, None: the task has none."""

    title: str
    requirements: str
    repository: str | None
    required_capabilities: list[str]
    priority: str
    execution_mode: str
    max_retries: int
    wants_pull_request: bool


def request(fleet: Fleet, asked: TaskRequest) -> Task:
    """Create a task. Raises Refused."""
    forge_name, repository, settings = _load_repository(fleet, asked["repository"])
    details = _details(asked, repository, settings)
    needs = tuple(sorted({matching.capability(word) for word in asked["required_capabilities"]} - {""}))
    with fleet.engine.begin() as conn:
        requirement_set = tasks.requirement_set(conn, needs, settings.cli if settings else None)
        task = tasks.create(conn, {
            "task_id": tasks.NUMBERED, "mode": asked["execution_mode"], "priority": int(Priority.of(asked["priority"])),
            "requirement_set_id": requirement_set, "forge": forge_name, "repository_id": repository and repository.id,
            "branch": prompt.branch_name("api-{n}", asked["title"]) if repository else None,
            "wants_pull": bool(repository) and asked["wants_pull_request"], "max_retries": asked["max_retries"],
        }, fleet.clock())  # fmt: skip
        task_details.add(conn, task.id, details)
    fleet.nudge.soon()
    return task


def _load_repository(fleet: Fleet, full_name: str | None) -> tuple[str | None, Repository | None, Settings | None]:
    """The forge, repository and settings that a request names; all None if it names none."""
    if full_name is None:
        return None, None, None
    with fleet.engine.begin() as conn:
        found = [(one.name, fleet_config.rule_for(conn, one.name, full_name)) for one in fleet_config.all_forges(conn)]
    for name, rule in found:
        repository = fleet.forges(name).repository(full_name) if rule else None
        if repository and rule:
            with fleet.engine.begin() as conn:
                repositories.save_repository(conn, name, repository)
            return name, repository, repository_settings.load_settings(fleet.forges(name), repository, rule)
    raise Refused(
        Kind.INVALID,
        f"repository: {full_name!r} is not among the repositories of fleet.toml, or the bot cannot see it.",
    )


def _details(asked: TaskRequest, repository: Repository | None, settings: Settings | None) -> TaskDetails:
    return TaskDetails(
        text=_text(asked, settings),
        source="api",
        task_type="task",
        repository=repository.as_json() if repository else None,
        validation=settings.validation if settings else (),
        timeout_secs=settings.timeout_secs if settings else DEFAULT_TIMEOUT_SECS,
        requested_by="operator",
        settings=settings.task if settings else TaskSettings(),
    )


def _text(asked: TaskRequest, settings: Settings | None) -> AcceptedText:
    title, requirements = asked["title"], asked["requirements"]
    text = prompt.read_issue(title, requirements)
    if settings:
        checks, forbidden = settings.validation, settings.task.forbidden_paths
        text = prompt.read_issue(title, requirements, checks, settings.rules, forbidden)
    return AcceptedText(one_line(title), clean(requirements)[: prompt.LONGEST_BODY], text)
