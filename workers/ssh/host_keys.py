"""Host keys: the ones that are pinned, and the one that a host shows."""

import base64
import hashlib
from typing import Any

import paramiko

from workers.errors import Distrusted


class Pinned(paramiko.MissingHostKeyPolicy):  # type: ignore[misc]
    """Lets only a host in that shows one of the pinned keys."""

    def __init__(self, keys: tuple[str, ...]) -> None:
        self._keys = keys

    def missing_host_key(self, _: Any, __: str, key: paramiko.PKey) -> None:
        if line_of(key) not in {" ".join(pinned.split()[:2]) for pinned in self._keys}:
            shown, pinned = fingerprint(line_of(key)), ", ".join(map(fingerprint, self._keys))
            raise Distrusted(f"host key changed: it shows {shown}, and {pinned} is pinned")


class Curious(paramiko.MissingHostKeyPolicy):  # type: ignore[misc]
    """Remembers the key that a host shows, and goes no further."""

    def __init__(self) -> None:
        self.shown = ""

    def missing_host_key(self, _: Any, __: str, key: paramiko.PKey) -> None:
        self.shown = line_of(key)
        raise Distrusted("it was only asked for its key")


def line_of(key: paramiko.PKey) -> str:
    """A key as a line of known_hosts has it, without the host."""
    return f"{key.get_name()} {key.get_base64()}"


def fingerprint(line: str) -> str:
    """SHA256:... as `ssh-keygen -l` shows it; nothing for a line that holds no key."""
    try:
        digest = hashlib.sha256(base64.b64decode(line.split()[1], validate=True)).digest()
    except (ValueError, IndexError):
        return ""
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")
