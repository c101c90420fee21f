"""Bootstraps a host: finds PATH, home and Python, uploads the supervisor once per version."""

from dataclasses import dataclass

from workers.errors import Unreachable
from workers.ssh.client import SshClient
from workers.supervisor import bundle

SURVEY_SECS, SHORT_SECS = 20.0, 10.0  # with the login shell, without it
MARK, GONE = "fleet-environment", b"fleet-gone"
SAFE_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._+@~-")

# On stdin of `sh`, for any login shell. PATH is read from `env`, since some shells do not join $PATH with colons.
# Read once per connection: a profile may start version managers and take seconds.
SURVEY = r"""
PATH_=@login
PATH=${PATH_:-$PATH}; export PATH
for python in /usr/bin/python3 python3 python3.14 python3.13 python3.12 python3.11 python3.10 python3.9 python3.8 \
    /usr/local/bin/python3 /opt/homebrew/bin/python3; do
  python=$(command -v "$python") && "$python" -I -S -c \
    'import sys; sys.exit(sys.version_info < (3, 8))' 2>/dev/null && break
  python=
done
printf '%s\n' fleet-environment "$PATH" "$HOME" "$python"
"""
LOGIN = r"""$("${SHELL:-/bin/sh}" -lc env </dev/null 2>/dev/null | sed -n 's/^PATH=//p' | tail -n 1)"""

# On stdin of `python3 -`: none of it is on a command line.
UPLOAD = """\
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

# Any program of the same user can rewrite files on the host, and the supervisor receives passwords. So the code that
# runs is the code that was read and hashed, and the hash is ours. Compiled bytes would save 20 ms, but have no hash.
RUN = (
    r"import hashlib,os,sys;path,sha,gone=sys.argv[1:4];del sys.argv[1:4];"
    r"code=os.path.exists(path)and open(path,\"rb\").read();"
    r"exec(compile(code,path,\"exec\"))if code and hashlib.sha256(code).hexdigest()==sha else print(gone)"
)


@dataclass(frozen=True)
class Environment:
    """What a login on a host has."""

    path: str  # PATH
    home: str
    python: str  # absolute path of a Python >= 3.8

    def expand(self, work_dir: str) -> str:
        """The work folder with its ~ replaced. Raises Unreachable if it is not safe on a command line."""
        is_below_home = work_dir == "~" or work_dir.startswith("~/")
        folder = self.home + work_dir[1:] if is_below_home else work_dir
        for text in (folder, self.python):
            if not text.startswith("/") or not SAFE_CHARACTERS.issuperset(text):
                raise Unreachable(f"the path {text!r} must be absolute, of letters, digits and /._+@-: set work_dir")
        return folder


def find_environment(client: SshClient) -> Environment:
    """Find PATH, home and Python of a host. Leaves out a login shell that does not answer. Raises Unreachable."""
    try:
        stdout, stderr = client.run("sh", SURVEY.replace("@login", LOGIN).encode(), secs=SURVEY_SECS)
    except Unreachable:
        stdout, stderr = client.run("sh", SURVEY.replace("@login", "").encode(), secs=SHORT_SECS)
    lines = stdout.decode(errors="replace").splitlines()
    if MARK not in lines[-4:-3]:
        last = stderr[-300:].decode(errors="replace") or lines[-1:]
        raise Unreachable(f"its shell does not run our commands: {last}")
    found = Environment(*lines[-3:])
    if not found.python:
        raise Unreachable(f"it has no Python 3.8 or newer on its PATH {found.path}: install python3 there")
    return found


def upload_supervisor(client: SshClient, environment: Environment, work_dir: str) -> str:
    """Upload our supervisor unless the host has it; returns its path there. Raises Unreachable."""
    code, sha = bundle.source(), bundle.sha256()
    path = f"{environment.expand(work_dir)}/bin/{sha}.py"
    program = UPLOAD.format(code=code, path=path, sha=sha, mark=MARK)
    stdout, stderr = client.run(f"sh -c 'exec {environment.python} -I -S -'", program.encode())
    if MARK.encode() not in stdout:
        last = (stderr.strip().splitlines() or [b"no answer"])[-1].decode(errors="replace")
        raise Unreachable(f"the supervisor could not be put into {path}: {last}")
    return path


def supervisor_command(environment: Environment, path: str, verb: str) -> str:
    """The command that runs one verb of the supervisor: the same for every login shell, and free of secrets."""
    return f"sh -c 'exec {environment.python} -I -S -c \"{RUN}\" {path} {bundle.sha256()} {GONE.decode()} {verb}'"
