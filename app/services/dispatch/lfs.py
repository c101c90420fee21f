"""Keeps tasks of Git LFS repositories off hosts without git-lfs."""

from dataclasses import replace

from sqlalchemy import Connection

from app.domain.host import Host, Slots
from app.domain.task import Task
from app.store import repositories


def lfs_repositories(conn: Connection) -> set[str]:
    """The repositories that keep files in Git LFS, as `forge id`."""
    return {f"{row.forge} {row.id}" for row in repositories.all_repositories(conn) if row.keeps_lfs}


def unplaceable(large: set[str], hosts: list[Host]) -> list[str]:
    """All of them if no host with git-lfs has a free slot now: then their tasks must not block others."""
    room = any(slots.free for host in hosts if host.takes_work and not host.lacks_lfs for slots in host.slots)
    return [] if room else sorted(large)


def close_without_lfs(hosts: list[Host], task: Task, large: set[str]) -> list[Host]:
    """The hosts; slots are closed on those that cannot fetch all files of the task."""
    if f"{task.forge} {task.repository_id}" not in large:
        return hosts
    return [replace(host, slots=tuple(map(_without_lfs, host.slots))) if host.lacks_lfs else host for host in hosts]


def _without_lfs(slots: Slots) -> Slots:
    return replace(slots, closed="git-lfs, which this repository needs, is not installed there")
