"""What we stand on at a host: its login PATH, its home, a Python, and the supervisor, pushed once a content."""

from dataclasses import dataclass

from workers.errors import Unreachable
from workers.ssh.client import Line
from workers.supervisor import bundle

SURVEY_SECS, SHORT_SECS = 20.0, 10.0
MARK, GONE = "fleet-footing", b"fleet-gone"
SAFE = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._+@~-")

# On standard input of `sh`, whatever the login shell is. `env` is read and not `$PATH`, which not every shell joins
# with colons. The profile is asked once a connection: it may start version managers and take its time.
SURVEY = r"""
PATH_=@login
PATH=${PATH_:-$PATH}; export PATH
for python in /usr/bin/python3 python3 python3.14 python3.13 python3.12 python3.11 python3.10 python3.9 python3.8 \
    /usr/local/bin/python3 /opt/homebrew/bin/python3; do
  python=$(command -v "$python") && "$python" -I -S -c \
    'import sys; sys.exit(sys.version_info < (3, 8))' 2>/dev/null && break
  python=
done
printf '%s\n' fleet-footing "$PATH" "$HOME" "$python"
"""
LOGIN = r"""$("${SHELL:-/bin/sh}" -lc env </dev/null 2>/dev/null | sed -n 's/^PATH=//p' | tail -n 1)"""

# On standard input of `python3 -`: nothing of it is on a command line.
PUSH = """\
import hashlib, os
code, path = {code!r}, {path!r}
def content(path):
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return b""
if content(path) != code:
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    draft = path + "." + str(os.getpid())
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(code)
        file.flush()
        os.fsync(file.fileno())
    os.rename(draft, path)
if hashlib.sha256(content(path)).hexdigest() != {sha!r}:
    raise SystemExit("the supervisor did not arrive whole")
print({mark!r})
"""

# What lies on a host may have been rewritten by anything that runs there as its user, and hears passwords: what is run
# is what was read and hashed, and the hash is ours. Compiled bytes, of which we know no hash, would save 20 ms.
RUN = (
    r"import hashlib,os,sys;path,sha,gone=sys.argv[1:4];del sys.argv[1:4];"
    r"code=os.path.exists(path)and open(path,\"rb\").read();"
    r"exec(compile(code,path,\"exec\"))if code and hashlib.sha256(code).hexdigest()==sha else print(gone)"
)


@dataclass(frozen=True)
class Footing:
    """What a host has."""

    path: str
    home: str
    python: str

    def folder(self, home: str) -> str:
        """Our folder there, its ~ filled in. Raises Unreachable where it could not go on a command line."""
        folder = self.home + home[1:] if home == "~" or home.startswith("~/") else home
        for text in (folder, self.python):
            if not text.startswith("/") or not SAFE.issuperset(text):
                raise Unreachable(f"the path {text!r} must be absolute, of letters, digits and /._+@-: set work_dir")
        return folder


def survey(line: Line) -> Footing:
    """Look at a host. A login shell that does not answer is left out. Raises Unreachable."""
    try:
        said, trouble = line.run("sh", SURVEY.replace("@login", LOGIN).encode(), secs=SURVEY_SECS)
    except Unreachable:
        said, trouble = line.run("sh", SURVEY.replace("@login", "").encode(), secs=SHORT_SECS)
    words = said.decode(errors="replace").splitlines()
    if MARK not in words[-4:-3]:
        raise Unreachable(f"its shell does not do as told: {trouble[-300:].decode(errors='replace') or words[-1:]}")
    found = Footing(*words[-3:])
    if not found.python:
        raise Unreachable(f"it has no Python 3.8 or newer on its PATH {found.path}: install python3 there")
    return found


def push(line: Line, footing: Footing, home: str) -> str:
    """Have our supervisor there, whole; its path. Raises Unreachable."""
    code, sha = bundle.source(), bundle.sha256()
    path = f"{footing.folder(home)}/bin/{sha}.py"
    program = PUSH.format(code=code, path=path, sha=sha, mark=MARK)
    said, trouble = line.run(f"sh -c 'exec {footing.python} -I -S -'", program.encode())
    if MARK.encode() not in said:
        last = (trouble.strip().splitlines() or [b"no answer"])[-1].decode(errors="replace")
        raise Unreachable(f"the supervisor could not be put into {path}: {last}")
    return path


def command(footing: Footing, path: str, verb: str) -> str:
    """One verb, asked of the supervisor; the same for every login shell, with nothing secret in it."""
    return f"sh -c 'exec {footing.python} -I -S -c \"{RUN}\" {path} {bundle.sha256()} {GONE.decode()} {verb}'"
