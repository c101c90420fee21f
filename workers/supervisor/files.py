"""Reads, replaces, locks and deletes files and folders."""

from __future__ import annotations

import fcntl
import os
import re

from workers.supervisor.constants import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Callable

    from workers.supervisor.constants import Json


def fleet_folder(request: Json) -> str:
    """Return the folder on this host that holds everything of the fleet."""
    return os.path.abspath(os.path.expanduser(request.get("home") or "~/.agent-fleet"))


def folder_name(text: str) -> str:
    """Return a readable name of at most 73 characters, different for every text."""
    try:  # hashlib would load all of OpenSSL
        from _sha256 import sha256  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        from hashlib import sha256
    readable = re.sub(r"[^A-Za-z0-9]+", "-", re.sub(r"^\w+://([^/]*@)?|\.git/?$", "", text)).strip("-")[-60:]
    return f"{readable}-{sha256(text.encode()).hexdigest()[:12]}"


def make_folder(path: str) -> bool:
    """Create a folder, and those above it, for this user alone. Return False if it existed."""
    try:
        os.mkdir(path, 0o700)
        return True
    except FileExistsError:
        return False
    except FileNotFoundError:
        make_folder(os.path.dirname(path))
        return make_folder(path)


def replace_file(path: str, content: bytes, mode: int = 0o600, durable: bool = False) -> None:
    """Write a file so that readers see the old content or the new, never a part."""
    draft = f"{path}.{os.getpid()}.tmp"
    try:
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:
            file.write(content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.rename(draft, path)
    except OSError:
        if os.path.exists(draft):
            os.unlink(draft)
        raise


def write_if_changed(path: str, content: bytes) -> None:
    if read_bytes(path) != content:
        replace_file(path, content)


def read_bytes(path: str) -> bytes | None:
    """Return a file's content, or None if it cannot be read."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return None


def read_tail(path: str, limit: int = 131072) -> bytes:
    """Return the last `limit` bytes of a file."""
    with open(path, "rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - limit))
        return file.read()


def open_log(path: str) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


def file_size(path: str) -> int:
    """Return a file's size in bytes; 0 if it does not exist."""
    try:
        return os.path.getsize(path)
    except OSError:
        return 0


def remove_file(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass


def delete_folder(path: str) -> None:
    """Delete a folder, also one with read-only folders in it: some package caches make them."""
    import shutil

    def allow_and_retry(remove: Callable[[str], object], inner: str, _: object) -> None:
        if os.path.lexists(inner):
            os.chmod(os.path.dirname(inner), 0o700)
            remove(inner)

    if os.path.lexists(path):
        shutil.rmtree(path, onerror=allow_and_retry)


def free_disk(request: Json) -> int:
    """Return the free bytes on the disk of the fleet's folder."""
    base = fleet_folder(request)
    while not os.path.exists(base):
        base = os.path.dirname(base)
    disk = os.statvfs(base)
    return disk.f_bavail * disk.f_frsize


def used_disk(path: str) -> int:
    """Return how many bytes the files below a folder take."""
    walk = os.walk(path)
    return sum(os.lstat(os.path.join(folder, name)).st_blocks << 9 for folder, _, names in walk for name in names)


class Lock:
    """An flock on a file. It ends with the process that holds it."""

    def __init__(self, path: str) -> None:
        self.path, self._fd = path, -1

    def acquire(self) -> bool:
        """Take the lock without waiting. Return False if another process holds it, or its folder does not exist."""
        if self._fd >= 0:
            return True
        try:
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(fd).st_nlink:  # else its folder was deleted between open and flock
                self._fd, fd = fd, -1
        except BlockingIOError:
            pass
        if fd >= 0:
            os.close(fd)
        return self._fd >= 0

    def release(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1

    def share_with_children(self) -> None:
        """Let programs that this process executes hold the lock, too."""
        os.set_inheritable(self._fd, True)

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
