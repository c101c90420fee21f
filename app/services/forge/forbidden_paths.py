"""Checks pull requests against the `forbidden_paths` of a repository's `.fleet.toml`."""

from fnmatch import fnmatchcase

from app.domain.errors import Kind, Refused
from app.domain.task import Task
from app.ports import Fleet, Forge, Pull
from app.store import task_details


def changed_forbidden(fleet: Fleet, forge: Forge, full_name: str, task: Task, pull: Pull) -> list[str]:
    """The forbidden paths that a task's pull request changes, sorted."""
    patterns = forbidden(fleet, task)
    files = forge.pull_files(full_name, pull.number) if patterns else []
    return sorted(path for path in files if any(_fits(path, pattern) for pattern in patterns))


def refusal(pull: Pull, changed: list[str]) -> Refused:
    """Why a pull request that changes these paths is refused."""
    return Refused(
        Kind.INVALID, f"Pull request #{pull.number} changes what .fleet.toml forbids: {', '.join(changed[:10])}."
    )


def forbidden(fleet: Fleet, task: Task) -> tuple[str, ...]:
    """The forbidden paths, as they were on the default branch when the task's text was accepted."""
    with fleet.engine.begin() as conn:
        return task_details.get(conn, task.id).settings.forbidden_paths


def _fits(path: str, pattern: str) -> bool:
    """`docs/` and `docs` mean everything below, `*.pem` any such file anywhere, `**` any depth."""
    bare = pattern.rstrip("/")
    anywhere = "/" not in bare and fnmatchcase(path.rsplit("/", 1)[-1], bare)
    return anywhere or fnmatchcase(path, bare) or path.startswith(f"{bare}/")
