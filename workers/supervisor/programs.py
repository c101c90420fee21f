"""Finds programs on PATH, trusted ones first, and the environment that they get."""

from __future__ import annotations

import errno
import os

PASSED_ON = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TMPDIR", "SHELL")
USER_FOLDERS = (
    "~/.local/bin",
    "~/bin",
    "~/.npm-global/bin",
    "~/.bun/bin",
    "~/.cargo/bin",
    "~/.volta/bin",
    "/usr/local/bin",
)


def base_environment() -> dict[str, str]:
    """Return the environment of every program that this host runs for a task; nothing in it is secret."""
    kept = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    env = {"HOME": os.path.expanduser("~"), **kept}
    return {**env, "PATH": with_user_folders(kept.get("PATH", os.defpath))}


def with_user_folders(path: str) -> str:
    """Add the folders of people's own programs to a PATH: sshd leaves them out without a login."""
    known = path.split(os.pathsep)
    own = [os.path.expanduser(folder) for folder in USER_FOLDERS]
    return os.pathsep.join([*known, *(folder for folder in own if folder not in known and os.path.isdir(folder))])


def find_program(name: str, path: str) -> str:
    """Find a program as execvp does; os.execvp imports a module first. Raises FileNotFoundError."""
    if "/" in name:
        return name
    for folder in path.split(os.pathsep):
        candidate = os.path.join(folder, name)
        if os.access(candidate, os.X_OK) and not os.path.isdir(candidate):
            return candidate
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))


def has_program(path: str, name: str) -> bool:
    try:
        return os.access(find_program(name, path), os.X_OK)
    except FileNotFoundError:
        return False


def is_installed(name: str) -> bool:
    return has_program(base_environment()["PATH"], name)


def trusted_path(path: str, *names: str) -> str:
    """Order a PATH for programs that receive passwords: folders that this user cannot write to come first.

    The others are left out if these programs are all in such folders. A CLI may have put a program of the same name
    into ~/.local/bin.
    """
    folders = [folder for folder in path.split(os.pathsep) if folder]
    trusted = [folder for folder in folders if is_trusted(folder)]
    is_enough = trusted and all(
        has_program(os.pathsep.join(trusted), name) or not has_program(path, name) for name in names
    )
    return os.pathsep.join(trusted if is_enough else [*trusted, *folders])


def is_trusted(path: str) -> bool:
    """Return True if this user can change neither a path nor a folder above it, symbolic links resolved or not."""
    names = (os.path.abspath(path), os.path.realpath(path))
    ends = [(name, end) for name in names for end in (len(name), *(at for at, sign in enumerate(name) if sign == "/"))]
    try:
        above = {name[:end] or "/" for name, end in ends}
        return not any(os.lstat(one).st_uid == os.geteuid() or os.access(one, os.W_OK) for one in above)
    except OSError:
        return False


def fill_placeholders(text: str, values: dict[str, str]) -> str:
    for placeholder, value in values.items():
        text = text.replace(placeholder, value)
    return text
