"""Runs git on bare repositories: refs, commits, diffs and merges."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from tempfile import mkdtemp

ZERO = "0" * 40
QUIET = {
    "PATH": os.environ.get("PATH", os.defpath),
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_TERMINAL_PROMPT": "0",
    "LC_ALL": "C",
    "HOME": os.devnull,
}


class Refused(Exception):
    """Git said no; the message is its own."""


def run(path: Path, *args: str, stdin: bytes = b"", env: dict[str, str] | None = None) -> bytes:
    done = subprocess.run(
        ["git", "-C", str(path), *args],
        input=stdin,
        env={**QUIET, **(env or {})},
        capture_output=True,
        check=False,
    )
    if done.returncode != 0:
        raise Refused((done.stderr or done.stdout).decode(errors="replace").strip())
    return done.stdout


def text(path: Path, *args: str, stdin: bytes = b"", env: dict[str, str] | None = None) -> str:
    return run(path, *args, stdin=stdin, env=env).decode(errors="replace").strip()


CONFIG = """
[gc]
	auto = 0
[receive]
	autogc = false
	advertisePushOptions = true
[uploadpack]
	allowFilter = true
"""
_made: dict[tuple[tuple[str, str], ...], Path] = {}  # by its files, a repository that has just been made


def create(path: Path, files: dict[str, str], name: str, email: str) -> None:
    """Create a bare repository with these files.

    Most tests need the same ones: these are created once, in the folder of the session, and copied.
    """
    home, key = os.environ.get("FLEET_TEST_HOME"), tuple(sorted(files.items()))
    if home is None:
        return make(path, files, name, email)
    if key not in _made or not _made[key].exists():
        _made[key] = Path(mkdtemp(prefix="repository-", dir=home)) / "git"
        make(_made[key], files, name, email)
    shutil.copytree(_made[key], path)


def make(path: Path, files: dict[str, str], name: str, email: str) -> None:
    path.mkdir(parents=True)
    run(path, "init", "--quiet", "--bare", "--initial-branch=main", "--template=")
    with (path / "config").open("a") as config:
        config.write(CONFIG)
    if files:
        write(path, "main", None, dict(files), "Initial commit\n", name, email)


def write(
    path: Path, branch: str, old: str | None, files: dict[str, str | None], message: str, name: str, email: str
) -> str:
    """One commit onto a branch that stands at `old`, with these files put in (None: taken out), by one call of git."""
    orders = [
        f"commit refs/heads/{branch}\ncommitter {name} <{email}> now\n".encode(),
        _data(message),
        f"from {old}\n".encode() if old else b"",
        *(_change(file, content) for file, content in files.items()),
    ]
    run(path, "fast-import", "--quiet", "--date-format=now", stdin=b"".join(orders))
    return sha_of(path, f"refs/heads/{branch}") or ""


def _change(name: str, content: str | None) -> bytes:
    quoted = '"' + name.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
    return f"D {quoted}\n".encode() if content is None else f"M 100644 inline {quoted}\n".encode() + _data(content)


def _data(text: str) -> bytes:
    raw = text.encode()
    return b"data %d\n%b\n" % (len(raw), raw)


def commit(
    path: Path,
    tree: str,
    parents: list[str],
    message: str,
    name: str,
    email: str,
    author_from: str | None = None,
) -> str:
    env = {
        "GIT_AUTHOR_NAME": name,
        "GIT_AUTHOR_EMAIL": email,
        "GIT_COMMITTER_NAME": name,
        "GIT_COMMITTER_EMAIL": email,
    }
    if author_from:
        asked = text(path, "log", "-1", "--format=%an%n%ae%n%ad", "--date=raw", author_from).split("\n")
        env |= dict(zip(("GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_AUTHOR_DATE"), asked, strict=True))
    args = [word for parent in parents for word in ("-p", parent)]
    return text(path, "commit-tree", tree, *args, stdin=message.encode(), env=env)


def sha_of(path: Path, ref: str) -> str | None:
    """Read a loose or packed ref without starting git: the API asks for it all the time."""
    loose = path / ref
    if loose.is_file():
        return loose.read_text().strip() or None
    packed = path / "packed-refs"
    for line in packed.read_text().splitlines() if packed.is_file() else []:
        if line.endswith(f" {ref}"):
            return line.split()[0]
    return None


def branch(path: Path, name: str) -> str | None:
    return sha_of(path, f"refs/heads/{name}")


def resolve(path: Path, what: str) -> str | None:
    """A branch, tag, full ref or commit id, as a commit id."""
    for ref in (f"refs/heads/{what}", what if what.startswith("refs/") else f"refs/tags/{what}"):
        if sha := sha_of(path, ref):
            return sha
    try:
        return text(path, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{what}^{{commit}}")
    except Refused:
        return None


def refs(path: Path, under: str = "refs/") -> dict[str, str]:
    lines = text(path, "for-each-ref", "--format=%(refname) %(objectname)", under).splitlines()
    return dict(line.rsplit(" ", 1) for line in lines)


def move(path: Path, ref: str, new: str, old: str | None = None) -> None:
    run(path, "update-ref", ref, new, *([old] if old else []))


def drop(path: Path, ref: str) -> None:
    run(path, "update-ref", "-d", ref)


def merge_base(path: Path, one: str, other: str) -> str:
    try:
        return text(path, "merge-base", one, other)
    except Refused:
        return ""


def is_ancestor(path: Path, old: str, new: str) -> bool:
    return merge_base(path, old, new) == old


def merged_tree(path: Path, ours: str, theirs: str) -> str:
    """The tree of a merge of two commits; Refused when they conflict."""
    return text(path, "merge-tree", "--write-tree", "--no-messages", ours, theirs)


def replant(path: Path, one: str, onto: str, name: str, email: str) -> str:
    """Cherry-pick one commit: a merge whose base is made to be the commit's parent."""
    parent = text(path, "rev-parse", f"{one}^")
    here = commit(path, f"{onto}^{{tree}}", [parent], "here\n", name, email)
    there = commit(path, f"{one}^{{tree}}", [parent], "there\n", name, email)
    message = text(path, "log", "-1", "--format=%B", one) + "\n"
    return commit(path, merged_tree(path, here, there), [onto], message, name, email, author_from=one)


def numstat(path: Path, old: str, new: str) -> list[tuple[int, int, str]]:
    lines = text(path, "diff", "--numstat", "--no-renames", "-z", old, new).split("\0")
    rows = [line.split("\t") for line in lines if line]
    return [(int(a) if a != "-" else 0, int(d) if d != "-" else 0, name) for a, d, name in rows]


def renames(path: Path, old: str, new: str) -> dict[str, str]:
    """The files that were moved: by the name that each has now, the one that it had."""
    found = text(path, "diff", "--name-status", "--diff-filter=R", "--find-renames", "-z", old, new).split("\0")
    return dict(zip(found[2::3], found[1::3], strict=False))
