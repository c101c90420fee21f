"""Keeps pull requests off the paths that a repository's `.fleet.toml` wants left as they are."""

from fnmatch import fnmatchcase

from app.domain.errors import Kind, Refused
from app.domain.task import Task
from app.ports import Fleet, Forge, Pull
from app.store import views


def touched(fleet: Fleet, forge: Forge, full_name: str, task: Task, pull: Pull) -> list[str]:
    """What a task's pull request changes of the forbidden paths, sorted."""
    patterns = paths(fleet, task)
    files = forge.pull_files(full_name, pull.number) if patterns else []
    return sorted(path for path in files if any(_fits(path, pattern) for pattern in patterns))


def refusal(pull: Pull, hit: list[str]) -> Refused:
    """Why a pull request that touches these paths is not offered."""
    return Refused(
        Kind.INVALID, f"Pull request #{pull.number} changes what .fleet.toml forbids: {', '.join(hit[:10])}."
    )


def paths(fleet: Fleet, task: Task) -> list[str]:
    """The forbidden paths, as they stood on the default branch when the task's text was accepted."""
    with fleet.engine.begin() as conn:
        return list((views.brief(conn, task.id)["settings"] or {}).get("forbidden_paths") or ())


def _fits(path: str, pattern: str) -> bool:
    """`docs/` and `docs` mean everything below, `*.pem` any such file anywhere, `**` any depth."""
    bare = pattern.rstrip("/")
    anywhere = "/" not in bare and fnmatchcase(path.rsplit("/", 1)[-1], bare)
    return anywhere or fnmatchcase(path, bare) or path.startswith(f"{bare}/")
