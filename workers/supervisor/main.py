"""Reads requests and writes answers: the program that runs on hosts.

    python3 -I -S supervisor.py start|poll|cancel|release|probe  < request.json  > answer
    python3 -I -S supervisor.py serve  < `<verb> <bytes>`, the request, the next one ...  > an answer each

An answer is one line of JSON and as many raw bytes after it as its `bytes` says: what logs have grown by.

A run is a folder, and the folder is the truth about it. `start` makes it and leaves a supervisor behind, which takes
the run through its steps, prepare -> agent -> validate -> deliver, even if nobody polls for an hour. Each JSON file in
it is written under another name and renamed. The process that holds the flock on `lock` supervises the run.
"""

from __future__ import annotations

import json
import os
import select
import sys

from workers.supervisor.constants import IDLE_SECS, TYPE_CHECKING
from workers.supervisor.errors import Refused, RunEnded
from workers.supervisor.files import folder_name
from workers.supervisor.isolation import forbid_inspection
from workers.supervisor.request import parse_request
from workers.supervisor.verbs import VERBS

if TYPE_CHECKING:
    from typing import NoReturn

    from workers.supervisor.constants import Json


def main() -> None:
    verb = sys.argv[1] if len(sys.argv) == 2 else ""
    if verb == "serve":
        serve()
    answer = answer_request(verb, sys.stdin.buffer.read())
    write_answer(answer)
    os._exit(2 if "error" in answer else 0)


def serve() -> NoReturn:
    """Answer one request after the other: starting Python for each would take ten times as long.

    A child answers each but a poll, so that no lock or credential stays in this process.
    """
    load_modules()
    while select.select([0], [], [], IDLE_SECS)[0]:
        verb, _, size = sys.stdin.buffer.readline().decode().partition(" ")
        if not size:
            break
        text = sys.stdin.buffer.read(int(size))
        if len(text) < int(size):
            break
        if verb == "poll":
            write_answer(answer_request(verb, text))
        elif not answer_in_child(verb, text):
            break
    os._exit(0)


def load_modules() -> None:
    """Import what a start needs, so that children find it loaded."""
    forbid_inspection()
    folder_name("")
    try:
        import ctypes

        ctypes.CDLL(None)
    except (ImportError, OSError):
        pass


def answer_in_child(verb: str, text: bytes) -> bool:
    """Return False if the child died without an answer: the session ends then, so that the caller does not wait."""
    pid = os.fork()
    if pid == 0:
        try:
            write_answer(answer_request(verb, text))
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitpid(pid, 0)[1] == 0


def answer_request(verb: str, text: bytes) -> Json:
    """Return the answer to a request; with `error` if it was refused or failed."""
    try:
        if verb not in VERBS:
            raise Refused(f"'{verb}' is not a verb: use one of {', '.join(VERBS)}, serve")
        return VERBS[verb](parse_request(verb, text))
    except (Refused, RunEnded) as error:
        return {"error": str(error)}
    except OSError as error:
        return {"error": f"this host could not {verb}: {error}; fix that, then ask again"}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        return {"error": f"a field of the request to {verb} has the wrong shape ({error}): fix it"}


def write_answer(answer: Json) -> None:
    """Write a line of JSON, then the raw bytes of `raw`."""
    raw: list[bytes] = answer.pop("raw", [])
    head = json.dumps({"bytes": sum(map(len, raw)), **answer})
    for piece in [head.encode() + b"\n", *raw]:
        rest = memoryview(piece)
        while rest:
            rest = rest[os.write(1, rest) :]


if __name__ == "__main__":
    main()
