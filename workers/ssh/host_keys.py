"""Host keys: accepts only pinned ones, reads the one that a host shows, prints fingerprints."""

import base64
import hashlib
from typing import Any

import paramiko

from workers.errors import Untrusted


class PinnedKeys(paramiko.MissingHostKeyPolicy):  # type: ignore[misc]
    """Accepts a host only if it shows one of the pinned keys."""

    def __init__(self, keys: tuple[str, ...]) -> None:
        self._keys = keys

    def missing_host_key(self, _: Any, __: str, key: paramiko.PKey) -> None:
        if public_line(key) not in {" ".join(pinned.split()[:2]) for pinned in self._keys}:
            shown, pinned = fingerprint(public_line(key)), ", ".join(map(fingerprint, self._keys))
            raise Untrusted(f"host key changed: it shows {shown}, and {pinned} is pinned")


class KeyReader(paramiko.MissingHostKeyPolicy):  # type: ignore[misc]
    """Reads the key that a host shows, and ends the connection."""

    def __init__(self) -> None:
        self.shown = ""

    def missing_host_key(self, _: Any, __: str, key: paramiko.PKey) -> None:
        self.shown = public_line(key)
        raise Untrusted("only the host key was read")


def public_line(key: paramiko.PKey) -> str:
    """A key as a line of known_hosts, without the host."""
    return f"{key.get_name()} {key.get_base64()}"


def fingerprint(line: str) -> str:
    """`SHA256:...` as `ssh-keygen -l` prints it; empty for a line that holds no key."""
    try:
        digest = hashlib.sha256(base64.b64decode(line.split()[1], validate=True)).digest()
    except (ValueError, IndexError):
        return ""
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")
