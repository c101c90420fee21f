"""Hands the forge's password to git without a file, an argument or an environment variable."""

from __future__ import annotations

import re

from workers.supervisor.constants import TYPE_CHECKING
from workers.supervisor.files import replace_file

if TYPE_CHECKING:
    from workers.supervisor.constants import Json
    from workers.supervisor.run import Run

ASKPASS = b"""#!/bin/sh
# Answers for the forge alone. A submodule on another server asks, too, and its address may contain the forge's name. A
# submodule on the forge may be fetched by http, the repository by https.
user=$FLEET_GIT_USERNAME host=$FLEET_GIT_HOST
for scheme in "$FLEET_GIT_SCHEME" https; do
    case "$1" in  # the second form of each is how git-lfs asks
    "Username for '$scheme://$host': " | "Username for \\"$scheme://$host\\"")
        printf '%s\\n' "$user" && exit ;;
    "Password for '$scheme://$user@$host': " | "Password for \\"$scheme://$user@$host\\"")
        dd bs="$FLEET_GIT_BYTES" count=1 <&3 2>/dev/null && exit ;;
    esac
done
exit 1
"""


class Credentials:
    """User name and password for one forge; empty if the request has none."""

    def __init__(self, request: Json, run: Run) -> None:
        self._run = run
        self._credentials: Json = request.get("credentials") or {}
        url = request["repository"]["url"]
        self._scheme, self._user, self._host = re.findall(r"\A(?:(\w+)://)?(?:([^/@]*)@)?([^/]*)", url)[0]

    def environment(self) -> dict[str, str]:
        """Write the askpass script into the run's folder. Return the variables with which git calls it."""
        if not self._credentials:
            return {}
        script = self._run.file("askpass")
        replace_file(script, ASKPASS, mode=0o700)
        return {"GIT_ASKPASS": script, "FLEET_GIT_SCHEME": self._scheme, "FLEET_GIT_HOST": self._host,
                "FLEET_GIT_USERNAME": self._user or self._credentials["username"],
                "FLEET_GIT_BYTES": str(len(self._password_line()))}  # fmt: skip

    def open(self) -> int:
        """Return the descriptor that the script reads the password from, as descriptor 3."""
        return serve_secret(self._password_line())

    def mask(self, text: str) -> str:
        password = self._credentials.get("password")
        return text.replace(password, "***") if password else text

    def _password_line(self) -> bytes:
        return str(self._credentials["password"]).encode("utf-8", "replace") + b"\n"


def serve_secret(text: bytes) -> int:
    """Return a socket on which each read of len(text) bytes returns the text, up to 32 times.

    `ps e` shows an environment to all programs of the same user, and they can open files and pipes of each other. No
    other program can open a socket.
    """
    from _socket import socketpair  # the module socket takes longer to import than this takes

    ours, theirs = socketpair()
    ours.setblocking(False)
    ours.send(text * 32)
    ours.close()
    return theirs.detach()
