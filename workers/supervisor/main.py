"""The one file that is copied to hosts: it starts, watches, cancels and releases coding-agent runs there.

    python3 -I -S supervisor.py start|poll|cancel|release|probe  < request.json  > answer
    python3 -I -S supervisor.py serve  < `<verb> <bytes>`, the request, the next one ...  > an answer each

An answer is one line of JSON and as many raw bytes behind it as its `bytes` says: what logs have grown by.

A run is a folder, and the folder is the truth about it. `start` makes it and leaves behind a supervisor, which
takes the run through its steps, prepare -> agent -> validate -> deliver, even if nobody asks for an hour. Each
JSON file in it is written under another name and renamed; who holds the flock on `lock` supervises the run.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import select
import signal
import sys
import time

TYPE_CHECKING = False  # importing typing costs 3 ms, and every one counts between `start` and the CLI
if TYPE_CHECKING:
    from subprocess import Popen
    from typing import Any, Callable, NoReturn

    Json = dict[str, Any]
    Exhausted = Callable[[], str | None]  # why a child has to be ended now, if it has to

STEPS = ("prepare", "agent", "validate", "deliver")
# The wall clock and the silence of the agent, all commands of the validation together, each git process, each hook.
# What a CLI may take to end after its last word. Of each log, how many bytes of its beginning and of its end are kept.
# A checkout that took longer than spare_secs has the next one made beforehand.
LIMITS = {"wall_secs": 3600, "silence_secs": 600, "grace_secs": 10, "validation_secs": 600, "git_secs": 600,
          "hook_secs": 300, "final_secs": 30, "spare_secs": 1.0,
          "log_head_bytes": 32 << 20, "log_tail_bytes": 32 << 20}  # fmt: skip
ENDS = {
    "cancelled": "the run was cancelled",
    "lost": "the supervisor was told to end (SIGTERM), but not by a cancel: the host may be shutting down",
    "timed_out": "the agent was still working after {wall_secs} s and was ended",
    "silent": "the agent printed nothing for {silence_secs} s and was ended",
}
NO_PRIVILEGES = "; it gets no new privileges since it is kept apart: `{} = false` of the CLI gives them back"
REPLACEABLE = (
    "{} is run from {}: any CLI of this user can replace it, and it hears the forge's password; install it for all"
)
NESTED = "{} was left out: it is a git repository of its own. Make it a submodule, or part of this one without its .git"
LET_IN = "the kernel did not keep this run apart, as it said it could: it could look into other processes of its user"
ENVIRONMENT = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TMPDIR", "SHELL")
NAME = re.compile(r"(?!\.)[A-Za-z0-9._-]{1,120}\Z")
NOT_IN_BRANCH = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|//|/\.|@\{|\.lock(/|\Z)|\A[-/.]|[/.]\Z|\A\Z")
STREAMS = ("stdout", "stderr")
ABANDONED_SECS = 3  # a folder without state.json whose maker has not locked it for so long belongs to nobody
PATIENCE_SECS = 10  # how long we wait for another process to do its part
IDLE_SECS = 600  # how long a supervisor stays on a line on which nothing is said; whoever calls hangs up before that
RESERVE_BYTES = 64 << 10  # kept free in a run's folder, so that a full disk still takes its result
LINGERING = "/var/lib/systemd/linger"  # whose systemd goes on when they log out
CGROUPS = ("/sys/fs/cgroup", "/sys/fs/cgroup/unified")
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Refused(Exception):
    """The request cannot be carried out; the sentence says what happened and what to do."""


class Ended(Exception):
    """The run is over before its last step."""

    def __init__(self, end: str, reason: str, failure: str | None = None) -> None:
        super().__init__(reason)
        self.end, self.failure = end, failure


class Moved(Exception):
    """Somebody else pushed to the task's branch since we looked."""


# ------------------------------------------------------------------------------------------------- the verbs
def main() -> None:
    verb = sys.argv[1] if len(sys.argv) == 2 else ""
    if verb == "serve":
        serve()
    answer = answered(verb, sys.stdin.buffer.read())
    tell(answer)
    os._exit(2 if "error" in answer else 0)


def serve() -> NoReturn:
    """Stay on the line and answer one request after the other: starting Python for each would take ten times as long.

    All but a poll is carried out by a child, so that nothing is left of it here: no lock, no credential.
    """
    warm_up()
    while select.select([0], [], [], IDLE_SECS)[0]:
        verb, _, size = sys.stdin.buffer.readline().decode().partition(" ")
        if not size:
            break
        text = sys.stdin.buffer.read(int(size))
        if len(text) < int(size):
            break
        if verb == "poll":
            tell(answered(verb, text))
        elif not by_a_child(verb, text):
            break
    os._exit(0)


def by_a_child(verb: str, text: bytes) -> bool:
    """False where it died without a word: whoever waits for one shall hear that there will be none."""
    pid = os.fork()
    if pid == 0:
        try:
            tell(answered(verb, text))
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitpid(pid, 0)[1] == 0


def answered(verb: str, text: bytes) -> Json:
    """What is to be told of a request."""
    try:
        if verb not in VERBS:
            raise Refused(f"'{verb}' is not a verb: use one of {', '.join(VERBS)}, serve")
        return VERBS[verb](checked(verb, text))
    except (Refused, Ended) as why:
        return {"error": str(why)}
    except OSError as why:
        return {"error": f"this host could not {verb}: {why}; put that right, then ask again"}
    except (AttributeError, KeyError, TypeError, ValueError) as why:
        return {"error": f"a field of the request to {verb} has the wrong shape ({why}): put that right"}


def tell(answer: Json) -> None:
    """A line of JSON, and the raw bytes that it speaks of."""
    raw: list[bytes] = answer.pop("raw", [])
    head = json.dumps({"bytes": sum(map(len, raw)), **answer})
    for piece in [head.encode() + b"\n", *raw]:
        rest = memoryview(piece)
        while rest:
            rest = rest[os.write(1, rest) :]


def warm_up() -> None:
    """Load what a start needs, for the children to find it there."""
    be_closed()
    folder_name("")
    try:
        import ctypes

        ctypes.CDLL(None)
    except (ImportError, OSError):
        pass


def start(request: Json) -> Json:
    """Make the run's folder and leave its supervisor behind. Saying it again changes nothing."""
    run, until = Run.named(request), time.monotonic() + PATIENCE_SECS
    while not run.has_begun():
        if run.claim():
            return {"run": run.name, "state": "started", "pid": launch(run, request)}
        if time.monotonic() > until:
            raise Refused(f"another process is still starting run {run.name}: poll it, or ask again")
        time.sleep(0.02)
    state, result = run.read("state.json"), run.read("result.json")
    refused = result is not None and state is None
    return {"run": run.name, "state": "cancelled" if refused else "known", "pid": (state or {}).get("pid")}


def poll(request: Json) -> Json:
    """How all these runs are, and what their logs have grown by since the given offsets.

    Of each log `length` raw bytes follow the answer, the first of them `at` bytes behind its line. `offset` is where
    they stand in the log: go on at offset + length. Where it lies behind the offset that was asked for, the bytes
    between were left out of the log. `limit` bounds all the raw bytes.
    """
    answers: Json = {}
    logs: list[tuple[int, str, int, Json]] = []
    for asked in request["runs"]:
        run = Run.named({**request, **asked})
        # The result is looked at before the logs: once it is there they do not grow any more.
        answer = answers[run.name] = run.seen()
        for name in STREAMS if answer["known"] else ():
            sizes = (answer["result"] or {}).get("logs") or {}
            path, begin, end = next_piece(run.file(name + ".log"), asked.get(name) or 0, sizes.get(name, 0))
            answer[name] = {"offset": begin, "size": end, "at": 0, "length": 0}
            logs.append((max(0, end - begin), path, begin, answer[name]))
    raw = share_out(logs, request.get("limit") or 262144)
    return {"now": time.time(), "boot_id": boot_id(), "disk_free": disk_free(request), "runs": answers, "raw": raw}


def cancel(request: Json) -> Json:
    """Have the run ended. One never seen here gets a tombstone, so that a late start is refused."""
    run, until = Run.named(request), time.monotonic() + PATIENCE_SECS
    make_folder(run.path)
    while time.monotonic() < until:
        if run.settled():
            return {"run": run.name, "state": "ended"}
        state = run.read("state.json")
        if state and run.is_supervised(state):
            run.write("cancel.json", {"grace_secs": request.get("grace_secs", LIMITS["grace_secs"])})
            os.kill(state["pid"], signal.SIGTERM)
            return {"run": run.name, "state": "cancelling"}
        if run.lock() and not run.has_begun():
            tombstone = outcome(run.name, "cancelled", "it was cancelled before it was started")
            run.write("result.json", tombstone, durable=True)
            return {"run": run.name, "state": "unknown"}
        time.sleep(0.02)
    raise Refused(f"run {run.name} is held by a process that does not answer: look at it on the host")


def release(request: Json) -> Json:
    """Delete an ended run, and its worktree once everything in it is on the forge or saved."""
    run = Run.named(request)
    make_folder(run.path)
    if (run.has_begun() and not run.settled()) or not run.lock():
        raise Refused(f"run {run.name} is still going: cancel it and wait for its result first")
    saved = None
    if request.get("worktree"):
        watch = Watch()
        with Lock(worktree_lock(request)) as lock:
            if not watch.acquire(lock, PATIENCE_SECS):
                raise Refused(f"another run works on task {request['task']}: end that one first")
            saved = Worktree(request, run, watch, LIMITS).give_up()
            os.unlink(lock.path)
    erase(run.path)
    return {"released": True, "saved": saved}


def probe(request: Json) -> Json:
    """What this host is and has: asked before it is given work."""
    clis = request.get("clis", {})
    path = guarded(environment()["PATH"], "git", "git-lfs")
    git = program("git", path) if has(path, "git") else "git"
    versions = versions_of({**clis, " git": [git, "--version"]})
    return {
        "now": time.time(), "boot_id": boot_id(), "python": ".".join(map(str, sys.version_info[:3])),
        "git": versions.pop(" git"), "disk_free": disk_free(request), "cpus": os.cpu_count(),
        "memory_available": memory_available(), "load": list(os.getloadavg()), "clis": versions,
        "missing": sorted(name for name, argv in clis.items() if not is_here(argv[0])), "lfs": is_here("git-lfs"),
        "apart": can_keep_apart(),
    }  # fmt: skip


def disk_free(request: Json) -> int:
    base = fleet_folder(request)
    while not os.path.exists(base):
        base = os.path.dirname(base)
    disk = os.statvfs(base)
    return disk.f_bavail * disk.f_frsize


def disk_used(path: str) -> int:
    """By the files below a folder, in bytes."""
    walk = os.walk(path)
    return sum(os.lstat(os.path.join(folder, name)).st_blocks << 9 for folder, _, names in walk for name in names)


VERBS = {"start": start, "poll": poll, "cancel": cancel, "release": release, "probe": probe}
RUN = {"instance": str, "run": str}
ASKED: dict[str, Json] = {  # what each verb needs
    "start": {**RUN, "task": str, "agent": dict, "agent.argv": list, "agent.prompt": str},
    "poll": {"instance": str, "runs": list},
    "cancel": RUN,
    "release": {**RUN, "task": str},
    "probe": {},
}
INSIDE = {  # what these need, where they are there at all
    "repository.url": str, "repository.branch": str, "repository.base": str,
    "credentials.username": str, "credentials.password": str,
    "delivery.message": str, "delivery.author_name": str, "delivery.author_email": str,
}  # fmt: skip
KINDS = {str: "a text", list: "a list", dict: "an object"}


# ----------------------------------------------------------------------------------------- what a request is
def checked(verb: str, text: bytes) -> Json:
    try:
        request = json.loads(text)
    except ValueError as why:
        raise Refused(f"the request on stdin is not JSON ({why}): send one JSON object") from None
    if not isinstance(request, dict):
        raise Refused("the request on stdin is not a JSON object: send one")
    for field, kind in [*ASKED[verb].items(), *INSIDE.items()]:
        owner, _, name = field.rpartition(".")
        holder = request.get(owner) if owner else request
        if holder is not None and not (isinstance(holder, dict) and isinstance(holder.get(name), kind)):
            raise Refused(f"the request to {verb} needs '{field}' as {KINDS[kind]}: add it and ask again")
    check_sense(request)
    if isinstance(request.get("path"), str):  # as a login has it: a session without one finds fewer programs
        os.environ["PATH"] = request["path"]
    return request


def check_sense(request: Json) -> None:
    """What would do harm later: names that leave their folder, options in disguise, a password on disk."""
    for field in ("instance", "run", "task"):
        check_name(field, request.get(field, "unasked"))
    for asked in request.get("runs") or []:
        check_name("run", asked.get("run") if isinstance(asked, dict) else asked)
    agent: Json = request.get("agent") or {"argv": ["-"]}
    hooks: Json = request.get("hooks") or {}
    commands = [command for moment in hooks.values() for command in as_list(moment)]
    commands += request.get("validation") or []
    texts = [*agent["argv"], *(agent.get("env") or {}).values(), *commands]
    if not agent["argv"] or not all(isinstance(text, str) and "\0" not in text for text in texts):
        raise Refused("agent.argv must name a program; agent.env and validation hold texts, none of them with a NUL")
    repository: Json = request.get("repository") or {}
    for field in ("base", "branch") if repository else ():
        if NOT_IN_BRANCH.search(repository[field]):
            raise Refused(f"repository.{field} {repository[field]!r} is no branch name: choose another")
    if not re.match(r"[0-9a-f]{40,64}\Z", repository.get("pushed") or "0" * 40):
        raise Refused("repository.pushed must be the full name of a commit, or not be there")
    if re.match(r"-|[^/]*//[^/@]*:[^/@]*@", repository.get("url", "")):
        raise Refused("repository.url must be a plain URL: send a password in credentials, not in it")


def as_list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise Refused("each of hooks must be a list of commands")
    return value


def check_name(field: str, name: object) -> None:
    if not (isinstance(name, str) and NAME.match(name)):
        raise Refused(f"{field} {name!r} cannot name a folder: use up to 120 of A-Za-z0-9._- and no leading dot")


# ------------------------------------------------------------------------------------------ the run's folder
class Run:
    """One run's folder: runs/<instance>/<run>/."""

    def __init__(self, base: str, instance: str, name: str) -> None:
        self.base, self.name = base, name
        self.path = os.path.join(base, "runs", instance, name)
        self._lock = Lock(self.file("lock"))

    @classmethod
    def named(cls, request: Json) -> Run:
        return cls(fleet_folder(request), request["instance"], request["run"])

    def file(self, name: str) -> str:
        return os.path.join(self.path, name)

    def read(self, name: str) -> Json | None:
        try:
            with open(self.file(name), "rb") as file:
                content = json.load(file)
                return content if isinstance(content, dict) else None
        except (OSError, ValueError):
            return None

    def write(self, name: str, content: Json, durable: bool = False) -> None:
        replace_file(self.file(name), json.dumps(content).encode(), durable=durable)

    def lock(self) -> bool:
        return self._lock.acquire()

    def unlock(self) -> None:
        self._lock.release()

    def has_begun(self) -> bool:
        """The files' existence counts: a state.json cut short by a power failure was a start too."""
        return os.path.exists(self.file("state.json")) or os.path.exists(self.file("result.json"))

    def claim(self) -> bool:
        """True for the one process that may start the run: it made the folder, or the maker died."""
        made = make_folder(self.path)
        return (made or self._age() > ABANDONED_SECS) and self.lock() and not self.has_begun()

    def _age(self) -> float:
        try:
            return time.time() - os.path.getmtime(self.path)
        except FileNotFoundError:  # taken away again by a starter that failed
            return 0

    def seen(self) -> Json:
        result, state = self.settled(), self.read("state.json")
        if not self.has_begun():
            return {"known": False}
        state = state or {}
        return {"known": True, "step": state.get("step"), "beat_age": self._beat_age(),
                "agent_started_at": state.get("agent_started_at"), "result": result,
                "noted": None if result else self.noted()}  # fmt: skip

    def noted(self) -> str | None:
        """What its CLI noted of its session last."""
        said = content_of(self.file("noted"))
        return said.decode("utf-8", "replace") if said else None

    def _beat_age(self) -> float | None:
        try:
            return max(0.0, time.time() - os.path.getmtime(self.file("heartbeat")))
        except OSError:
            return None

    def is_supervised(self, state: Json) -> bool:
        """Whether the process that wrote this still lives. Where /proc hides it, its lock on the run must speak for it:
        its number may be another's by now."""
        is_here = state.get("boot_id") == boot_id() and is_hidden(state["pid"])
        return is_alive(state) or (is_here and not self.lock())

    def settled(self) -> Json | None:
        """The run's result. A run whose supervisor is dead gets one here: lost."""
        result = self.read("result.json")
        if result or not self.has_begun() or is_alive(self.read("state.json")) or not self.lock():
            return result
        try:  # with the lock ours no supervisor lives, but it may have written its result just before it went
            return self.read("result.json") or self._lose(self.read("state.json") or {})
        finally:
            self.unlock()

    def _lose(self, state: Json) -> Json:
        reason, survivors = "the host was rebooted", []
        if state.get("boot_id") == boot_id():
            reason = "the supervisor died"
            if state.get("pid") and started(state["pid"]):
                reason += ", and its process number is another program's now"
            survivors = end_leftovers(self, state)
        if state.get("step") == "deliver":
            reason += " while it was delivering: look at the branch on the forge before anything is run again"
        known = {key: state[key] for key in ("step", "started_at", "base", "head", "validation") if key in state}
        result = outcome(self.name, "lost", reason, survivors=survivors, noted=self.noted(), **known)
        remove(self.file("reserve"))
        try:
            self.write("result.json", result, durable=True)
        except OSError:  # said again at the next look; whoever asks hears it all the same
            pass
        return result


class Lock:
    """An flock on a file; it ends with the process that holds it, however that ends."""

    def __init__(self, path: str) -> None:
        self.path, self._fd = path, -1

    def acquire(self) -> bool:
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

    def bequeath(self) -> None:
        """What we exec holds it from now on."""
        os.set_inheritable(self._fd, True)

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def outcome(run: str, end: str, reason: str | None, **known: Any) -> Json:
    """What result.json holds, with nothing in it that is not known."""
    now = time.time()
    empty: Json = {
        "run": run, "end": end, "step": None, "reason": reason, "exit_code": None, "signal": None,
        "started_at": now, "ended_at": now, "steps": [], "validation": [],
        "base": None, "head": None, "commits": [], "changed": False, "pushed": False,
        "failure": None, "hung": False, "survivors": [], "logs": {}, "noted": None, "lfs": False,
        "warnings": [],
    }  # fmt: skip
    return {**empty, **known}


def fleet_folder(request: Json) -> str:
    return os.path.abspath(os.path.expanduser(request.get("home") or "~/.agent-fleet"))


def make_folder(path: str) -> bool:
    """True if we made it. Whatever has to be made above it is for our eyes only, too."""
    try:
        os.mkdir(path, 0o700)
        return True
    except FileExistsError:
        return False
    except FileNotFoundError:
        make_folder(os.path.dirname(path))
        return make_folder(path)


def replace_file(path: str, content: bytes, mode: int = 0o600, durable: bool = False) -> None:
    """Whoever reads sees the old content or the new, never a half."""
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


def erase(path: str) -> None:
    """Delete a folder, also one with read-only folders in it, as some package caches make them."""
    import shutil

    def open_up(remove: Callable[[str], object], inner: str, _: object) -> None:
        if os.path.lexists(inner):
            os.chmod(os.path.dirname(inner), 0o700)
            remove(inner)

    if os.path.lexists(path):
        shutil.rmtree(path, onerror=open_up)


def next_piece(path: str, offset: int, ended_at: int) -> tuple[str, int, int]:
    """Where a log goes on from `offset`: the file, the offset of its first byte that can be had, and the log's end.

    What was left out is stepped over. `ended_at` is the size of a log that has ended, whose last bytes may be missing.
    """
    files = log_files(path)
    sizes = [size_of(file) for _, file in files]
    end = max([ended_at, *(begin + size for (begin, _), size in zip(files, sizes))])
    for (begin, file), size in zip(files, sizes):
        if offset < begin + size:
            return file, max(offset, begin), end
    return path, (end if ended_at and offset < end else offset), end


def log_files(path: str) -> list[tuple[int, str]]:
    """A log's files and the offsets at which they begin, in order: see Log."""
    folder, name = os.path.split(path)
    rest = (other[len(name) + 1 :] for other in os.listdir(folder) if other.startswith(name + "."))
    return [(0, path), *sorted((int(number), f"{path}.{number}") for number in rest if number.isdigit())]


def size_of(path: str) -> int:
    try:
        return os.path.getsize(path)
    except OSError:  # not begun, or let go of meanwhile
        return 0


def share_out(logs: list[tuple[int, str, int, Json]], budget: int) -> list[bytes]:
    """The new bytes of each log. Those with little news come first and leave the rest to others."""
    raw: list[bytes] = []
    at = 0
    logs.sort(key=lambda log: log[0])
    for position, (news, path, offset, answer) in enumerate(logs):
        share = max(1, budget // (len(logs) - position))
        if news:
            raw.append(read_piece(path, offset, min(news, share)))
            answer.update(at=at, length=len(raw[-1]))
            at, budget = at + len(raw[-1]), budget - len(raw[-1])
    return raw


def read_piece(path: str, offset: int, most: int) -> bytes:
    try:
        with open(path, "rb") as file:
            file.seek(offset - int(path.rpartition(".log.")[2] if ".log." in os.path.basename(path) else 0))
            return file.read(most)
    except FileNotFoundError:  # let go of a moment ago: the next poll finds what comes after it
        return b""


# ---------------------------------------------------------------------------------------------- a run's life
def launch(run: Run, request: Json) -> int:
    """Detach the supervisor, which says through a pipe that it lives. If it cannot, the folder goes."""
    try:
        run.write("spec.json", without_secrets(request))
        replace_file(run.file("prompt.txt"), request["agent"]["prompt"].encode("utf-8", "replace"))
        replace_file(run.file("reserve"), bytes(RESERVE_BYTES))
        hear, say = os.pipe()
        if os.fork() == 0:
            detach(run, request, say)
        os.close(say)
        os.wait()
        with open(hear, "rb") as pipe:
            word = pipe.read().decode()
        if not word.isdigit():
            raise Refused(f"run {run.name} could not begin: {word or 'it died'}; put that right, then ask again")
        return int(word)
    except (OSError, Refused):
        erase(run.path)
        raise


def without_secrets(request: Json) -> Json:
    """The request as it may lie on a disk: of the agent's environment, where keys are, only the names."""
    agent = {**request["agent"], "env": sorted(request["agent"].get("env") or {})}
    del agent["prompt"]
    return {**{key: value for key, value in request.items() if key != "credentials"}, "agent": agent}


def detach(run: Run, request: Json, say: int) -> NoReturn:
    os.setsid()
    if os.fork():
        os._exit(0)
    try:
        os.chdir(run.path)
        null, log = os.open(os.devnull, os.O_RDWR), open_log("supervisor.log")
        for fd, place in ((null, 0), (null, 1), (log, 2)):
            os.dup2(fd, place)
        supervisor = Supervisor(run, request)
        supervisor.begin()
        os.write(say, str(os.getpid()).encode())
        os.close(say)
        supervisor.live()
    except OSError as why:
        say_why(say, why)
        sys.excepthook(*sys.exc_info())
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(0)


def say_why(say: int, why: OSError) -> None:
    try:
        os.write(say, str(why).encode())
    except OSError:  # it was said long ago that we began
        pass


def open_log(path: str) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


class Supervisor:
    """Takes one run through its steps and writes down how it ended."""

    def __init__(self, run: Run, request: Json) -> None:
        self.run, self.request = run, request
        self.limits: Json = {**LIMITS, **{k: v for k, v in (request.get("limits") or {}).items() if v}}
        self.watch = Watch(run.file("heartbeat"), request.get("heartbeat_secs") or 5)
        self.tree = Worktree(request, run, self.watch, self.limits)
        self.tree_lock = Lock(worktree_lock(request))
        self.state: Json = {
            "run": run.name, "pid": os.getpid(), "pgid": os.getpgrp(), "pid_start": started(os.getpid()),
            "boot_id": boot_id(), "step": STEPS[0], "started_at": time.time(),
            "agent_pid": None, "agent_pgid": None, "agent_start": None, "agent_started_at": None,
        }  # fmt: skip
        self.result = outcome(run.name, "finished", None, started_at=self.state["started_at"])

    def begin(self) -> None:
        self.run.write("state.json", self.state)

    def live(self) -> None:
        be_closed()
        inherit_orphans()
        try:
            self.state["cgroup"] = own_cgroup(self.watch, f"fleet-{mark(self.run)}.scope")
            for step in STEPS:
                self.take(step)
            self.tree.await_spare()
            self.watch.heed_cancel()  # too late to stop the push, and `pushed` says so
        except Ended as why:
            self.result.update(end=why.end, reason=str(why), failure=why.failure)
        except Exception as why:  # an end with a reason is better than none
            sys.excepthook(*sys.exc_info())
            self.result.update(end="failed", reason=f"step {self.state['step']} failed on this host: {why}")
            if isinstance(why, OSError) and why.errno in NO_ROOM:
                self.result["failure"] = "disk_full"
        if self.result["end"] == "cancelled" and not self.run.read("cancel.json"):
            self.result.update(end="lost", reason=ENDS["lost"])
        self.result.update(survivors=self.watch.survivors, lfs=self.tree.keeps_lfs)
        remove(self.run.file("reserve"))
        self.run.write("result.json", {**self.result, "ended_at": time.time()}, durable=True)
        self.tree_lock.release()
        self.run.unlock()
        self.tree.tidy()

    def take(self, step: str) -> None:
        """One step, written down before and after."""
        self.state["step"] = self.result["step"] = step
        began, note = time.monotonic(), {"name": step, "seconds": 0.0, "ok": False}
        self.result["steps"].append(note)
        try:
            self.watch.heed_cancel()
            if step != STEPS[0]:
                self.note()
            self.hooks(f"before_{step}")
            note["ok"] = getattr(self, step)()
            self.hooks(f"after_{step}")
        finally:
            note["seconds"] = round(time.monotonic() - began, 4)

    def note(self, durable: bool = False) -> None:
        """How far we are. A full disk costs the note and not the run."""
        try:
            self.run.write("state.json", self.state, durable=durable)
        except OSError as why:
            if why.errno not in NO_ROOM:
                raise

    def grace(self) -> float:
        return float({**self.limits, **(self.run.read("cancel.json") or {})}["grace_secs"])

    def prepare(self) -> bool:
        make_folder(os.path.dirname(self.tree.path))
        if not self.watch.acquire(self.tree_lock, PATIENCE_SECS):
            raise Ended("failed", f"another run still works in {self.tree.path}: end that one first")
        self.result["base"] = self.state["base"] = self.tree.prepare()
        self.result["warnings"] += self.tree.warnings + self.tree.replaceable()
        return True

    def agent(self) -> bool:
        child = self.agent_process()
        self.state.update(agent_pid=child.pid, agent_pgid=child.pid, agent_start=started(child.pid),
                          agent_started_at=time.time())  # fmt: skip
        self.run.write("state.json", self.state)  # the note comes first: no process without one
        self.go(child, f"the CLI '{child.argv[0]}'")
        self.state["agent_start"] = self.state["agent_start"] or started(child.pid)  # hidden while it was a copy of us
        self.note(durable=True)  # only now: syncing holds up the checkout
        notes = Notes(self.run, self.request["agent"], child.env, self.state["agent_started_at"])
        patience = Patience(self, self.logs, notes)
        why = self.watch.over(child, patience.exhausted, self.grace)
        self.watch.hang_up()
        self.result.update(exit_code=child.exit_code, signal=child.signal, hung=why == "hung",
                           logs={name: log.size for name, log in zip(STREAMS, self.logs)})  # fmt: skip
        self.result["noted"] = notes.newest()
        if why and why != "hung":
            raise Ended(why, ENDS[why].format(**self.limits))
        if child.exit_code != 0 and not why:
            hint = self.hint("apart", b"".join(log.end for log in self.logs))
            raise Ended("failed", f"the CLI '{child.argv[0]}' {child.how()}: read the end of its logs{hint}")
        return True

    def agent_process(self) -> Child:
        agent, places = self.request["agent"], {
            "{workdir}": self.tree.path, "{run}": self.run.path, "{home}": os.path.expanduser("~"),
            "{prompt_file}": self.run.file("prompt.txt"), "{task}": self.request["task"]}  # fmt: skip
        is_apart = self.is_apart("apart")
        argv = [filled(word, places) for word in with_flags(agent, is_apart)]
        env = {key: filled(value, places) for key, value in (agent.get("env") or {}).items()}
        prompt = os.devnull if agent.get("prompt_via") == "file" else "prompt.txt"
        last_word = LastWord(agent.get("final") or ())
        self.logs = [Log("stdout.log", self.limits, last_word), Log("stderr.log", self.limits)]
        files = [os.open(prompt, os.O_RDONLY), *map(self.watch.tap, self.logs)]
        whole = {**environment(), **env, **self.names()}
        whole["PATH"] = path_to(argv[0], whole["PATH"])
        return Child(argv, whole, self.tree.path, files, is_apart)

    def is_apart(self, switch: str) -> bool:
        """Whether the CLI (`apart`), or hooks and checks (`checks_apart`), are kept from looking into other processes.
        These are the repository's own words and may need sudo or containers: only where it is wished."""
        return self.request["agent"].get(switch, switch == "apart") is True

    def hint(self, switch: str, said: bytes) -> str:
        """For the reason of a failure: what keeps a program from sudo and the like, if that is what it complains of."""
        return NO_PRIVILEGES.format(switch) if self.is_apart(switch) and b"no new privileges" in said else ""

    def names(self) -> dict[str, str]:
        """What the run's processes bear in their environment; by the second what a dead supervisor left is found."""
        return {"FLEET_RUN": self.run.name, "FLEET_RUN_ID": mark(self.run)}

    def go(self, child: Child, who: str) -> None:
        try:
            child.go()
        except FileNotFoundError:
            raise Ended("failed", f"{who} is not on this host's PATH", "cli_missing") from None
        except OSError as why:
            raise Ended("failed", f"{who} could not be started: {why.strerror}") from None
        if child.is_let_in and LET_IN not in self.result["warnings"]:
            self.result["warnings"].append(LET_IN)

    def validate(self) -> bool:
        until, log = time.monotonic() + self.limits["validation_secs"], Log("validate.log", self.limits)
        self.state["validation"] = self.result["validation"]
        for command in self.request.get("validation") or []:
            note = self.check(command, log, until)
            self.result["validation"].append(note)
            if note["exit_code"] != 0:
                hint = self.hint("checks_apart", note["tail"].encode())
                self.result["reason"] = f"validation failed: `{command}` ended with {note['exit_code']}{hint}"
                return False
        return True

    def check(self, command: str, log: Log, until: float, where: str = "") -> Json:
        began, log.end = time.monotonic(), b""
        pipe = self.watch.tap(log)
        files = [os.open(os.devnull, os.O_RDONLY), pipe, os.dup(pipe)]
        env = {**environment(), **self.names()}
        child = Child(["sh", "-c", command], env, where or self.tree.path, files, self.is_apart("checks_apart"))
        self.state.update(check_pid=child.pid, check_start=started(child.pid))
        self.note()
        self.go(child, "the shell")
        late = self.watch.over(child, lambda: self.watch.told_to_stop or late_after(until), self.grace)
        self.watch.hang_up()
        self.watch.heed_cancel()
        code = 124 if late else 128 + child.signal if child.signal else child.exit_code
        return {"command": command, "exit_code": code, "seconds": round(time.monotonic() - began, 3),
                "tail": log.end.decode("utf-8", "replace")}  # fmt: skip

    def hooks(self, moment: str) -> None:
        """The repository's own commands around a step, without any credential: in the worktree, or in the run's folder
        before there is one. One that fails ends the run: what it was to make ready or to check is not so. After the
        delivery there is nothing left to end: it stands, with a warning."""
        commands = (self.request.get("hooks") or {}).get(moment) or []
        log = Log("hooks.log", self.limits) if commands else None
        where = self.run.path if moment == "before_prepare" else self.tree.path
        for command in commands:
            assert log
            note = {"hook": moment, **self.check(command, log, time.monotonic() + self.limits["hook_secs"], where)}
            self.result.setdefault("hooks", []).append(note)
            if note["exit_code"] != 0:
                said = f"hook {moment} `{command}` ended with {note['exit_code']}: {note['tail'][-1000:].rstrip()}"
                said += self.hint("checks_apart", note["tail"].encode())
                if moment != "after_deliver":
                    raise Ended("failed", said, "hook_failed")
                self.result["warnings"].append(said)
                break

    def deliver(self) -> bool:
        wanted = self.request.get("delivery")
        if wanted and self.tree.mirror:
            who = wanted["author_name"], wanted["author_email"]
            left = self.tree.commit(wanted["message"], *who)
            self.result["warnings"] += [NESTED.format(path) for path in left]
            self.tree.come_back()
            while True:
                is_joined = self.tree.join_others(*who)
                self.note_head()
                if is_joined:
                    self.validate()  # it is another tree than the one that was checked
                try:
                    self.result["pushed"] = self.tree.deliver()
                    break
                except Moved:
                    self.watch.heed_cancel()
        return True

    def note_head(self) -> None:
        head, base = self.tree.head(), self.result["base"]
        self.result.update(head=head, commits=self.tree.commits_since(base), changed=head != base)
        self.state["head"] = head  # if we die while pushing, the forge can be asked for it
        self.note()


class Patience:
    """When the agent has to be ended, and why."""

    def __init__(self, supervisor: Supervisor, logs: list[Log], notes: Notes) -> None:
        self.watch, self.limits, self.logs, self.notes = supervisor.watch, supervisor.limits, logs, notes
        self.began = self.heard_at = time.monotonic()
        self.heard = 0

    def exhausted(self) -> str | None:
        self.notes.keep_up()
        now, heard, last_word = time.monotonic(), sum(log.size for log in self.logs), self.logs[0].last_word
        if heard != self.heard:
            self.heard, self.heard_at = heard, now
        if self.watch.told_to_stop:
            return "cancelled"
        if last_word and last_word.said_at and now - last_word.said_at > self.limits["final_secs"]:
            return "hung"
        if now - self.began > self.limits["wall_secs"]:
            return "timed_out"
        return "silent" if now - self.heard_at > self.limits["silence_secs"] else None


def late_after(moment: float) -> str | None:
    return "timed_out" if time.monotonic() > moment else None


def environment() -> dict[str, str]:
    kept = {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}
    env = {"HOME": os.path.expanduser("~"), **kept}
    return {**env, "PATH": search_path(kept.get("PATH", os.defpath))}


def filled(text: str, places: dict[str, str]) -> str:
    for placeholder, value in places.items():
        text = text.replace(placeholder, value)
    return text


# -------------------------------------------------------------------------------------------------- the logs
class Log:
    """What a program says, on a disk that must not fill: the beginning whole, of the rest the newest pieces.

    `stdout.log` holds the bytes from 0. When it is full `stdout.log.<offset>` goes on, and then the next, and the
    oldest of these go. A name says where its bytes stand: offsets stay true whatever was left out between.
    """

    PIECES = 8
    END_BYTES = 4000

    def __init__(self, path: str, limits: Json, last_word: LastWord | None = None) -> None:
        self.path, self.last_word = path, last_word
        self.size, self.end = 0, b""  # how many bytes were said, and the last of them
        self._piece = max(1, limits["log_tail_bytes"] // self.PIECES)
        self._pieces: list[str] = []
        self._fd, self._room = open_log(path), limits["log_head_bytes"]

    def write(self, data: bytes) -> None:
        self.end = (self.end + data[-self.END_BYTES :])[-self.END_BYTES :]
        if self.last_word:
            self.last_word.hear(data)
        while data:
            if not self._room:
                self._turn_over()
            part = data[: self._room]
            self._put(part)
            data = data[len(part) :]

    def _put(self, data: bytes) -> None:
        """A full disk costs these bytes and not the run: they are left out, and the next piece begins behind them."""
        try:
            done = os.write(self._fd, data)
        except OSError:
            done = 0
        self.size += len(data)
        self._room = self._room - done if done == len(data) else 0

    def _turn_over(self) -> None:
        self._close()
        self._pieces.append(f"{self.path}.{self.size:015}")
        self._room = self._piece
        try:
            self._fd = open_log(self._pieces[-1])
        except OSError:
            self._fd = -1
        while len(self._pieces) > self.PIECES + 1:
            remove(self._pieces.pop(0))

    def _close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        if self._pieces and not size_of(self._pieces[-1]):  # the disk was full
            remove(self._pieces.pop())


class LastWord:
    """Hears when a CLI has said that it is done: a line of JSON whose `type` is one of those that end its output.

    What is no JSON after it is noise; a further line of JSON means that it goes on.
    """

    LONGEST = 4 << 20

    def __init__(self, types: tuple[str, ...] | list[str]) -> None:
        self._types, self._rest = set(types), bytearray()
        self.said_at: float | None = None

    def hear(self, data: bytes) -> None:
        if not self._types:
            return
        self._rest += data
        if b"\n" in data:
            lines = bytes(self._rest).split(b"\n")
            self._rest = bytearray(lines.pop())
            events = [line for line in lines if line.startswith(b"{")]
            if events:
                self.said_at = time.monotonic() if self._is_last(events[-1]) else None
        elif len(self._rest) > self.LONGEST:
            self._rest = bytearray(b"-")  # no line that we would read

    def _is_last(self, line: bytes) -> bool:
        if not any(kind.encode() in line for kind in self._types):
            return False
        try:
            return json.loads(line).get("type") in self._types
        except (ValueError, RecursionError, TypeError):
            return False


class Notes:
    """What a CLI notes in a file that it keeps of its session: the last line of a kind that it wrote since a moment.
    Its template says how the session is named on its output, and where the file is. It is a favour, no duty."""

    EVERY_SECS = 1.0
    LONGEST = 8192  # bytes of a line
    ODD = (OSError, ValueError, TypeError, LookupError, AttributeError, re.error)

    def __init__(self, run: Run, agent: Json, env: dict[str, str], since: float) -> None:
        self._run, self._wanted, self._env = run, agent.get("session_file"), env
        self._since = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(since))
        self._path: str | None = None
        self._size, self._next_look = 0, 0.0
        self._line: str | None = None

    def keep_up(self) -> None:
        """For whoever polls while the CLI works."""
        if self._wanted and time.monotonic() >= self._next_look:
            before = self._line
            if self.newest() != before:
                try:
                    replace_file(self._run.file("noted"), (self._line or "").encode())
                except OSError:
                    pass
            self._next_look = time.monotonic() + self.EVERY_SECS

    def newest(self) -> str | None:
        try:
            self._path = self._path or (self._find() if self._wanted else None)
            if self._path and size_of(self._path) != self._size:
                self._size = size_of(self._path)
                self._line = self._last_line(tail_of(self._path)) or self._line
        except self.ODD:
            pass
        return self._line

    def _find(self) -> str | None:
        wanted: Json = self._wanted or {}
        with open("stdout.log", "rb") as file:
            session = re.search(wanted["named"].encode(), file.read(65536))
        if not session:
            return None
        import glob

        places = {"{%s}" % name: value for name, value in self._env.items()}
        path = filled(wanted["path"], {**places, "{session}": session.group(1).decode("ascii")})
        return next(iter(glob.glob(path)), None)

    def _last_line(self, tail: bytes) -> str | None:
        wanted: Json = self._wanted or {}
        whole = tail[: tail.rfind(b"\n") + 1]  # the last may be half written
        for line in reversed(whole.decode("utf-8", "replace").splitlines()):
            if wanted["line"] in line and len(line) < self.LONGEST:
                return line if json.loads(line).get("timestamp", "") >= self._since else None
        return None


def tail_of(path: str, most: int = 131072) -> bytes:
    with open(path, "rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - most))
        return file.read()


def remove(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass


# --------------------------------------------------------------------------------------------- the processes
class Child:
    """One program in a session of its own, so that it and what it starts can be ended together.

    Until `go` it waits before its first instruction; if we die before that, it goes too. Made with fork and exec
    by hand: importing subprocess takes longer than all of this.
    """

    def __init__(self, argv: list[str], env: dict[str, str], cwd: str, files: list[int], apart: bool = False) -> None:
        self.argv, self.exit_code, self.signal = argv, None, None  # type: list[str], int | None, int | None
        self.env, self.is_let_in = env, False  # by a kernel that was to keep it apart and did not
        gate, self._gate = os.pipe()
        self._trouble, trouble = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._gate)  # ours alone: held by itself it would wait for ever when we die
            become(argv, env, cwd, files, gate, trouble, apart)
        for fd in {gate, trouble, *files}:
            os.close(fd)

    def go(self) -> None:
        with open(self._gate, "wb"), open(self._trouble, "rb") as trouble:
            os.write(self._gate, b"!")
            said = trouble.read()  # ends without a number when exec has closed the other end
        number = said.lstrip(b"!")
        self.is_let_in = number != said
        if number:
            os.waitpid(self.pid, 0)
            self.exit_code = 127
            raise OSError(int(number), os.strerror(int(number)), self.argv[0])

    def has_ended(self) -> bool:
        if self.exit_code is None and self.signal is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid and os.WIFSIGNALED(status):
                self.signal = os.WTERMSIG(status)
            elif pid:
                self.exit_code = os.WEXITSTATUS(status)
        return self.exit_code is not None or self.signal is not None

    def how(self) -> str:
        return f"was ended by signal {self.signal}" if self.signal else f"ended with code {self.exit_code}"


def become(
    argv: list[str], env: dict[str, str], cwd: str, files: list[int], gate: int, trouble: int, apart: bool
) -> NoReturn:
    try:
        if apart and not keep_apart():
            os.write(trouble, b"!")
        os.setsid()
        for number in OURS:
            signal.signal(number, signal.SIG_DFL)
        os.chdir(cwd)
        free = len(files)  # what we still need must not lie where a file is to be
        gate, trouble, *files = (fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, free) for fd in (gate, trouble, *files))
        for place, fd in enumerate(files):
            os.dup2(fd, place)
        if os.read(gate, 1):
            os.execve(program(argv[0], env["PATH"]), argv, env)
    except OSError as why:
        os.write(trouble, str(why.errno).encode())
    finally:
        os._exit(127)


def program(name: str, path: str) -> str:
    """As execvp finds it; Python's own way there imports a module first."""
    if "/" in name:
        return name
    for folder in path.split(os.pathsep):
        place = os.path.join(folder, name)
        if os.access(place, os.X_OK) and not os.path.isdir(place):
            return place
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))


def is_here(name: str) -> bool:
    return has(environment()["PATH"], name)


def has(path: str, name: str) -> bool:
    try:
        return os.access(program(name, path), os.X_OK)
    except FileNotFoundError:
        return False


# What Python or we have set up otherwise than a program may expect.
OURS = (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGTERM, signal.SIGCHLD, signal.SIGINT, signal.SIGHUP)


class Watch:
    """Waits for children while the heart beats; hears at once that one ended or that the run shall stop."""

    def __init__(self, heart: str | None = None, beat_secs: float = 5) -> None:
        self.told_to_stop: str | None = None
        self.told_at = 0.0
        self.survivors: list[Json] = []  # what no signal ended
        self.apart: list[int] = []  # processes of ours that are no part of the run
        self._taps: dict[int, Log] = {}
        self._heart, self._beat_secs, self._next_beat = heart, beat_secs, 0.0
        self._ear, bell = os.pipe()
        os.set_blocking(self._ear, False)
        os.set_blocking(bell, False)
        signal.set_wakeup_fd(bell, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, self._stop)
        self.beat()

    def _stop(self, *_: object) -> None:
        self.told_at, self.told_to_stop = time.monotonic(), "cancelled"

    def heed_cancel(self) -> None:
        if self.told_to_stop:
            raise Ended("cancelled", ENDS["cancelled"])

    def beat(self) -> None:
        now = time.monotonic()
        if self._heart and now >= self._next_beat:
            os.close(os.open(self._heart, os.O_WRONLY | os.O_CREAT, 0o600))
            os.utime(self._heart)
            self._next_beat = now + self._beat_secs

    def pause(self, secs: float, *pipes: int) -> list[int]:
        """Sleep until something happens, at most so long; the pipes that have something to read."""
        self.beat()
        secs = min(secs, self._next_beat - time.monotonic()) if self._heart else secs
        ready = select.select([self._ear, *self._taps, *pipes], [], [], max(0.0, secs))[0]
        if self._ear in ready:
            os.read(self._ear, 4096)
        for pipe in ready:
            if pipe in self._taps:
                self._take_down(pipe)
        return [pipe for pipe in ready if pipe in pipes]

    def tap(self, log: Log) -> int:
        """A pipe for a program to write to; what comes out of it goes to the log while we pause."""
        hear, say = os.pipe()
        try:
            fcntl.fcntl(hear, 1031, 1 << 20)  # F_SETPIPE_SZ: fewer turns for much output
        except OSError:
            pass
        os.set_blocking(hear, False)
        self._taps[hear] = log
        return say

    def hang_up(self) -> None:
        """The programs have ended: take down what is still in the pipes."""
        for pipe in list(self._taps):
            while self._take_down(pipe):
                pass
            if self._taps.pop(pipe, None):
                os.close(pipe)

    def _take_down(self, pipe: int) -> bool:
        try:
            data = os.read(pipe, 1 << 20)
        except BlockingIOError:
            return False
        if data:
            self._taps[pipe].write(data)
        else:  # nobody can write to it any more
            del self._taps[pipe]
            os.close(pipe)
        return bool(data)

    def acquire(self, lock: Lock, secs: float) -> bool:
        until = time.monotonic() + secs
        while not lock.acquire():
            self.heed_cancel()
            if time.monotonic() > until:
                return False
            self.pause(0.01)
        return True

    def over(self, child: Child, exhausted: Exhausted, grace: Callable[[], float]) -> str | None:
        """Wait for the child's end, or make it when patience is exhausted. What it leaves running is ended."""
        why = None
        try:
            while not child.has_ended() and not why:
                self.pause(0.5)
                bury_orphans(child)
                why = None if child.has_ended() else exhausted()
        finally:
            self.end(child, grace())
        return why

    def end(self, child: Child, grace: float) -> None:
        """End the child and everything below us: ask, wait, kill. What lives on even so is written down."""
        for number, patience in ((signal.SIGTERM, grace), (signal.SIGKILL, PATIENCE_SECS)):
            until = time.monotonic() + patience
            send(number, self._family(child))
            while not child.has_ended() or self._family(child):
                if time.monotonic() > until:
                    break
                self.pause(0.02)
                if number == signal.SIGKILL:  # also what was started meanwhile
                    send(number, self._family(child))
            else:
                return
        self.survivors += [described(pid) for pid in self._family(child)]

    def _family(self, child: Child) -> list[int]:
        """Every living process that we have to end. As their subreaper we inherit those that left everything else."""
        bury_orphans(child)
        apart = {os.getpid(), *(descendants(self.apart) if self.apart else ())}
        return [pid for pid in {*members(child.pid), *descendants([os.getpid()])} if pid not in apart]

    def listen(self, child: Child, pipes: list[int], exhausted: Exhausted) -> tuple[str | None, list[bytes]]:
        """Wait for a child that talks through pipes: why it had to be ended, and what it said."""
        said, talking, why = dict.fromkeys(pipes, b""), list(pipes), None
        while not child.has_ended() and not why:
            self._hear(said, talking, 0.5)
            why = None if child.has_ended() else exhausted()
        if why:
            self.end(child, 2)
        while self._hear(said, talking, 0):
            pass
        for pipe in pipes:
            os.close(pipe)
        return why, list(said.values())

    def _hear(self, said: dict[int, bytes], talking: list[int], secs: float) -> bool:
        ready = self.pause(secs, *talking)
        for pipe in ready:
            data = os.read(pipe, 1 << 20)
            said[pipe] += data
            if not data:
                talking.remove(pipe)
        return bool(ready)


def send(number: int, pids: list[int]) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except (ProcessLookupError, PermissionError):
            pass


def control(*what: int) -> None:
    """prctl; nothing where there is none."""
    try:
        import ctypes

        ctypes.CDLL(None).prctl(*what, 0, 0, 0)
    except (ImportError, OSError, AttributeError):
        pass


def inherit_orphans() -> None:
    """Have the kernel make us the parent of whatever below us loses its own. Linux only; elsewhere sessions must do."""
    control(36, 1)  # PR_SET_CHILD_SUBREAPER


def be_closed() -> None:
    """Other programs of the same user may not look into our memory, where passwords are, until we become another."""
    control(4, 0)  # PR_SET_DUMPABLE


def landlock(number: int, *what: Any) -> int:
    """A system call of Landlock's, 444 to make rules, 446 to live by them; negative where there is none."""
    try:
        import ctypes

        words = [ctypes.c_long(one) if isinstance(one, int) else one for one in (number, *what)]
        return int(ctypes.CDLL(None).syscall(*words)) if sys.platform == "linux" else -1
    except (ImportError, OSError, AttributeError):
        return -1


def can_keep_apart() -> bool:
    """Linux 6.12 and newer can, by version 6 of Landlock; root may look at everything even so."""
    return os.geteuid() != 0 and landlock(444, None, 0, 1) >= 6


def keep_apart() -> bool:
    """Have the kernel keep this process, and all that it starts, from looking into any other of the same user:
    environment, memory, open files. It costs sudo and the like. A Landlock domain does that by being one; some rule it
    must have, so that abstract sockets of others are out of reach, too. False where a kernel that can does not."""
    if not can_keep_apart():
        return True
    rules = landlock(444, b"".join(one.to_bytes(8, sys.byteorder) for one in (0, 0, 1)), 24, 0)
    if rules < 0:
        return False
    control(38, 1)  # PR_SET_NO_NEW_PRIVS
    is_kept = landlock(446, rules, 0) == 0
    os.close(rules)
    return is_kept


def bury_orphans(child: Child) -> None:
    """Take note of the deaths of those we inherited; the child's own is for it to hear."""
    while hasattr(os, "waitid"):
        try:
            dead = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if dead is None or dead.si_pid == child.pid:
            return
        os.waitpid(dead.si_pid, os.WNOHANG)


def descendants(ancestors: list[int]) -> list[int]:
    """The living processes below these, themselves included; none where there is no /proc to read."""
    children: dict[int, list[int]] = {}
    for pid, fields in everybody():
        children.setdefault(int(fields[1]), []).append(pid)
    found, next_ = [], list(ancestors)
    while next_:
        pid = next_.pop()
        found.append(pid)
        next_ += children.pop(pid, [])
    return [pid for pid in found if (process(pid) or [b"Z"])[0] != b"Z"]


def everybody() -> list[tuple[int, list[bytes]]]:
    if not os.path.exists("/proc/self/stat"):
        return []
    seen = [(int(pid), process(int(pid))) for pid in os.listdir("/proc") if pid.isdigit()]
    return [(pid, fields) for pid, fields in seen if fields]


def described(pid: int) -> Json:
    """A process for people to look for."""
    words = (content_of(f"/proc/{pid}/cmdline") or b"").split(b"\0")
    return {"pid": pid, "command": b" ".join(words).decode("utf-8", "replace").strip()[:200]}


def members(session: int) -> list[int]:
    """The living processes of a session or group. A shell's jobs leave the group, not the session."""
    if not os.path.exists("/proc/self/stat"):
        try:
            os.kill(-session, 0)
            return [-session]
        except OSError:
            return []
    wanted = str(session).encode()
    return [pid for pid, fields in everybody() if wanted in fields[2:4] and fields[0] != b"Z"]


def process(pid: int) -> list[bytes]:
    """/proc/<pid>/stat from its third field on: state, parent, group, session ... start time at [19]."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()
    except OSError:
        return []


def started(pid: int) -> int | None:
    fields = process(pid)
    return int(fields[19]) if fields and fields[0] != b"Z" else None


def is_alive(state: Json | None) -> bool:
    """Whether the very process that wrote this still lives: same boot, same pid, same start."""
    if not state or state.get("boot_id") != boot_id():
        return False
    if state.get("pid_start") is not None:
        return bool(started(state["pid"]) == state["pid_start"])
    try:
        os.kill(state["pid"], 0)
        return True
    except OSError:
        return False


def is_hidden(pid: int) -> bool:
    """Whether a process of this user lives of which /proc tells nothing: mounted with hidepid it hides closed ones."""
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return not process(pid)


def still_works(child: int) -> bool:
    """Of a child of ours, whatever /proc tells."""
    try:
        return os.waitpid(child, os.WNOHANG)[0] == 0
    except ChildProcessError:
        return False


def end_leftovers(run: Run, state: Json) -> list[Json]:
    """Kill what a dead supervisor left behind; what lives on even so."""
    until = time.monotonic() + PATIENCE_SECS
    while (left := leftovers(run, state)) and time.monotonic() < until:
        send(signal.SIGKILL, left)
        time.sleep(0.02)
    return [described(pid) for pid in left]


def leftovers(run: Run, state: Json) -> list[int]:
    """The sessions it had begun (unless the number is somebody else's by now), whatever bears the run's mark in its
    environment, and all below these. Only a process that broke off from all of that is missed."""
    begun = [state[who + "_pid"] for who in ("agent", "check") if state.get(who + "_pid")
             and started(state[who + "_pid"]) in (None, state.get(who + "_start"))]  # fmt: skip
    ours = [pid for session in begun for pid in members(session)] + inside(state.get("cgroup"))
    if os.path.exists("/proc/self/environ"):
        sign = b"FLEET_RUN_ID=" + os.fsencode(mark(run))
        names = filter(str.isdigit, os.listdir("/proc"))
        ours += [int(pid) for pid in names if sign in (content_of(f"/proc/{pid}/environ") or b"").split(b"\0")]
        ours = descendants(ours)
    return [pid for pid in {*ours} if pid != os.getpid()]


def own_cgroup(watch: Watch, name: str) -> str | None:
    """Have the user's systemd put us into a scope of our own, and with us whatever we start; its cgroup, or None where
    that cannot be. Without lingering such a scope would end with the user's last session, and the run with it."""
    folder = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"
    if not (os.path.exists(folder + "/bus") and os.path.exists(f"{LINGERING}/{os.environ.get('USER') or 'root'}")):
        return None
    manager = ("org.freedesktop.systemd1", "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager")
    call = ["busctl", "--user", "--quiet", "call", *manager, "StartTransientUnit", "ssa(sv)a(sa(sv))", name, "fail"]
    env = {**environment(), "XDG_RUNTIME_DIR": folder}
    files = [os.open(os.devnull, os.O_RDWR) for _ in range(3)]
    child = Child([*call, "1", "PIDs", "au", "1", str(os.getpid()), "0"], env, "/", files)
    try:
        child.go()
    except OSError:
        return None
    until = time.monotonic() + 2
    watch.over(child, lambda: late_after(until), lambda: 0.5)
    while child.exit_code == 0 and time.monotonic() < until:
        cgroup = (content_of("/proc/self/cgroup") or b"").rpartition(b"0::")[2].decode().strip()
        if cgroup.endswith("/" + name):
            return cgroup
        watch.pause(0.02)
    return None


def inside(cgroup: str | None) -> list[int]:
    """The processes of a cgroup that one of our supervisors had to itself."""
    if not cgroup or not cgroup.endswith(".scope") or "/fleet-" not in cgroup:
        return []
    found = [content_of(f"{root}{cgroup}/cgroup.procs") or b"" for root in CGROUPS]
    return [int(pid) for pids in found for pid in pids.split()]


def mark(run: Run) -> str:
    """Names the run among all that work on this host, whosever they are."""
    return folder_name(run.path)


def boot_id() -> str | None:
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return file.read().strip()
    except OSError:
        return None


# ------------------------------------------------------------------------------------------------------- git
MIRROR_CONFIG = b"""[core]
\trepositoryformatversion = 0
\tfilemode = true
\tbare = true
[gc]
\tauto = 0
[maintenance]
\tauto = false
[advice]
\tdetachedHead = false
\tpushUpdateRejected = false
"""
# For the agent's git, too: what it commits of these files are pointers, as everybody else's git would make them.
LFS_CONFIG = b"""[filter "lfs"]
\tclean = git-lfs clean -- %f
\tsmudge = git-lfs smudge -- %f
\tprocess = git-lfs filter-process
\trequired = true
[lfs]
\trepositoryformatversion = 0
"""
ASKPASS = b"""#!/bin/sh
# Ours is for our forge alone. A submodule elsewhere asks, too, whose address may have our forge's name in it, or one at
# our forge by http, where we call it by https.
user=$FLEET_GIT_USERNAME host=$FLEET_GIT_HOST
for scheme in "$FLEET_GIT_SCHEME" https; do
    case "$1" in  # the second of each is how git-lfs asks
    "Username for '$scheme://$host': " | "Username for \\"$scheme://$host\\"")
        printf '%s\\n' "$user" && exit ;;
    "Password for '$scheme://$user@$host': " | "Password for \\"$scheme://$user@$host\\"")
        dd bs="$FLEET_GIT_BYTES" count=1 <&3 2>/dev/null && exit ;;
    esac
done
exit 1
"""
# The agent may write to the mirror, its home and its worktree. None of that may decide what git does for us. Of many
# files to be written several processes write a part each.
GIT = ("git", "-c", "core.hooksPath=/dev/null", "-c", "credential.helper=", "-c", "core.fsmonitor=false",
       "-c", "checkout.workers=4", "-c", "checkout.thresholdForParallelism=1000")  # fmt: skip
GIT_ENVIRONMENT = {
    "HOME": "/dev/null", "LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0", "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_ATTR_NOSYSTEM": "1", "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_LFS_SKIP_SMUDGE": "1",  # a checkout has no password: what it leaves as pointers is fetched afterwards
}  # fmt: skip
GIT_KEPT = ("http_proxy", "https_proxy", "no_proxy", "all_proxy", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY",
            "GIT_SSL_CAINFO", "SSL_CERT_FILE", "SSH_AUTH_SOCK")  # fmt: skip


class Mirror:
    """The bare copy of one repository that all its worktrees on this host share."""

    def __init__(self, request: Json, run: Run, watch: Watch, limits: Json) -> None:
        self.url: str = request["repository"]["url"]
        self._forge = re.findall(r"\A(?:(\w+)://)?(?:([^/@]*)@)?([^/]*)", self.url)[0]  # whom the password is for
        self.push_to: str = request["repository"].get("push_to") or ""  # a refspec of the forge's own, else a branch
        self.push_options: list[str] = request["repository"].get("push_options") or []
        self.fetch_from: str = request["repository"].get("fetch_from") or ""
        self.path = os.path.join(fleet_folder(request), "mirrors", folder_name(self.url) + ".git")
        self.lock = Lock(self.path + ".lock")
        self._credentials: Json = request.get("credentials") or {}
        self.search_path = guarded(environment()["PATH"], "git", "git-lfs")
        self._run, self._watch, self._limits = run, watch, limits

    def refresh(self, base: str, branch: str) -> None:
        """Fetch the base, and the task's branch if the forge has it: one git process, one connection.

        To name a branch that is not there would fail, so a star follows; a longer name it matches does no harm.
        """
        refs = [f"+refs/heads/{name}:refs/remotes/origin/{name}" for name in (base, branch + "*")]
        if self.fetch_from:
            refs[1] = f"+{self.fetch_from}:refs/remotes/origin/{branch}"
        self.fetch("--no-tags", *refs)

    def fetch(self, option: str, *refs: str, **how: Any) -> None:
        words = ("fetch", "--quiet", option, "--prune", "--no-recurse-submodules", "--", self.url, *refs)
        try:
            self.git(*words, secret=True, **how)
        except Ended:
            if not self._swept_locks():
                raise
            self.git(*words, secret=True, **how)

    def _swept_locks(self) -> bool:
        """A git killed with its host leaves its lock files for ever. None of ours lives longer than git_secs."""
        swept = False
        for folder, _, names in os.walk(self.path):
            for lock in (os.path.join(folder, name) for name in names if name.endswith(".lock")):
                if time.time() - os.path.getmtime(lock) > self._limits["git_secs"]:
                    os.unlink(lock)
                    swept = True
        return swept

    def pack(self) -> None:
        settings = ("-c", "gc.auto=2000", "-c", "gc.autoDetach=false", "-c", "gc.bigPackThreshold=256m")
        self.try_git(*settings, "gc", "--auto", "--quiet")

    def push(self, sha: str, branch: str, known: str | None = None, anew: bool = False) -> None:
        """Onto the task's branch only where it is as we know it: `known`, or not there. To `refs/for/` only what stands
        on what is there, unless that is written `anew`. A cancel gives it a grace: of a push cut short nobody knows
        whether it arrived."""
        wip = branch.startswith("wip/")
        agit = self.push_to and not wip
        target = self.push_to if agit else f"refs/heads/{branch}"
        asked = [*self.push_options, *(["force-push=true"] if anew else [])] if agit else []
        options = [f"--push-option={option}" for option in asked]
        options += [] if agit or wip else [f"--force-with-lease={target}:{known or ''}"]
        words, grace = (
            ("push", "--quiet", "--no-verify", "--recurse-submodules=no", *options, "--"),
            self._limits["grace_secs"],
        )
        self.git(*words, self.url, f"{sha}:{target}", secret=True, patience=grace)
        for place in ("remotes/origin",) if wip else ("remotes/origin", "pushed"):
            self.git("update-ref", f"refs/{place}/{branch}", sha, patience=grace + PATIENCE_SECS)

    def lfs(self, *words: str, where: tuple[str, ...], patience: float = 0) -> None:
        """Git LFS, with the server that belongs to our forge's address, unless the repository names another."""
        server = self.url + ("" if self.url.endswith(".git") else ".git") + "/info/lfs"
        settings = {
            "remote.origin.url": self.url,
            f"lfs.{server}.access": "basic",
            f"lfs.{server}.locksverify": "false",
        }
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        self.git("lfs", *words, where=(*options, *where), secret=True, patience=patience)

    def forge_has(self, sha: str, branch: str) -> bool:
        """Ask the forge itself: what to believe when a push did not end well."""
        words = ("ls-remote", "--", self.url, "refs/pull/*/head" if self.push_to else f"refs/heads/{branch}")
        patience = self._limits["grace_secs"] + PATIENCE_SECS
        code, answer, _ = self.try_git(*words, secret=True, patience=patience)
        return code == 0 and any(line.startswith(sha) for line in answer.splitlines())

    def ref(self, name: str) -> str | None:
        """Read by hand: asking git costs a process."""
        try:
            with open(os.path.join(self.path, name)) as file:
                return file.read().strip()
        except OSError:
            pass
        try:
            with open(os.path.join(self.path, "packed-refs")) as file:
                return next((line[:-1].split(" ")[0] for line in file if line.endswith(f" {name}\n")), None)
        except OSError:
            return None

    def git(self, *words: str, **how: Any) -> str:
        code, out, trouble = self.try_git(*words, **how)
        if code:
            lines = [line for line in trouble.splitlines() if line.strip() and not line.startswith("hint:")]
            raise Ended("failed", f"git {words[0]} failed: " + " | ".join(lines[-4:]))
        return out

    def try_git(
        self,
        *words: str,
        where: tuple[str, ...] = (),
        secret: bool = False,
        patience: float = 0,
        env: dict[str, str] | None = None,
    ) -> tuple[int | None, str, str]:
        """Run git on the mirror, or `where`; `patience` is how long it may go on after a cancel. One that needs no
        secret is kept apart like a CLI: there may be an agent's filters in a submodule's git folder."""
        self._put_right()
        (out, out_end), (trouble, trouble_end) = os.pipe(), os.pipe()
        files = [os.open(os.devnull, os.O_RDONLY), out_end, trouble_end]
        argv = [*GIT, *(where or ("--git-dir=" + self.path,)), *words]
        given = self.environment(secret)
        if "GIT_ASKPASS" in given:
            files.append(whisper(self._password()))
        child = Child(argv, {**given, **(env or {})}, self.path, files, apart=not secret)
        try:
            child.go()
        except OSError as why:
            raise Ended("failed", f"this host could not start git ({why.strerror}): install it") from None
        why_ended, said = self._watch.listen(child, [out, trouble], self._deadline(patience))
        texts = [text.decode("utf-8", "replace") for text in said]
        if self._credentials.get("password"):
            texts = [text.replace(self._credentials["password"], "***") for text in texts]
        if why_ended:
            raise Ended(why_ended, f"git {words[0]} was ended: {GIT_ENDS[why_ended].format(**self._limits)}")
        return child.exit_code if child.signal is None else 128 + child.signal, texts[0], texts[1]

    def _deadline(self, patience: float) -> Exhausted:
        until = time.monotonic() + self._limits["git_secs"]

        def exhausted() -> str | None:
            now = time.monotonic()
            if self._watch.told_to_stop and now > self._watch.told_at + patience:
                return "cancelled"
            return "failed" if now > until else None

        return exhausted

    def environment(self, secret: bool) -> dict[str, str]:
        env = {**environment(), **GIT_ENVIRONMENT, "GIT_COMMON_DIR": self.path, "PATH": self.search_path}
        env.update({name: os.environ[name] for name in GIT_KEPT if name in os.environ})
        if secret and self._credentials:
            replace_file(self._run.file("askpass"), ASKPASS, mode=0o700)
            env["GIT_ASKPASS"] = self._run.file("askpass")
            env["FLEET_GIT_SCHEME"], user, env["FLEET_GIT_HOST"] = self._forge
            env["FLEET_GIT_USERNAME"] = user or self._credentials["username"]
            env["FLEET_GIT_BYTES"] = str(len(self._password()))
        return env

    def _password(self) -> bytes:
        """As git wants to hear it."""
        return str(self._credentials["password"]).encode("utf-8", "replace") + b"\n"

    def _put_right(self) -> None:
        """The mirror as `git init --bare` would make it, whatever an agent wrote into it since."""
        for folder in ("objects", "refs"):
            make_folder(os.path.join(self.path, folder))
        put_right(self.path + "/HEAD", b"ref: refs/heads/main\n")
        put_right(self.path + "/config", MIRROR_CONFIG + (LFS_CONFIG if is_here("git-lfs") else b""))
        if os.path.lexists(self.path + "/commondir"):  # it would name another folder whose config counts
            os.unlink(self.path + "/commondir")


class Module(Mirror):
    """The bare copy of a submodule's repository, which all worktrees on this host that have it are cloned from."""

    def __init__(self, of: Mirror, base: str, url: str) -> None:
        vars(self).update(vars(of))
        self.url, self.path = url, os.path.join(base, "modules", folder_name(url) + ".git")
        self.lock = Lock(self.path + ".lock")
        # As git has it for submodules: no address on this host, unless the repository's own is one.
        self._allow = ("-c", "protocol.file.allow=" + ("always" if of.url.startswith("file:") else "user"))

    def environment(self, secret: bool) -> dict[str, str]:
        """Without the password where its address names a user: by one, an older git asks as if for another host."""
        return super().environment(secret and not re.match(r"https?://[^/]*[@%]", self.url, re.IGNORECASE))

    def bring(self, commit: str) -> None:
        """Ask its forge only where the commit is not here yet; one that no branch has must be asked for by its name."""
        for refs in (("+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"), (f"{commit}:refs/kept/{commit}",)):
            if not self._has(commit):
                where, env = (*self._allow, "--git-dir=" + self.path), {"GIT_PROTOCOL_FROM_USER": "0"}
                self.fetch("--no-auto-gc", *refs, where=where, env=env)

    def _has(self, commit: str) -> bool:
        return self.try_git("cat-file", "-e", commit + "^{commit}")[0] == 0

    def options(self, name: str) -> tuple[str, ...]:
        """Have git clone and fetch the submodule from here, and name its own forge in it even so."""
        said = {"protocol.file.allow": "always", f"url.{self.path}.insteadOf": self.url,
                f"submodule.{name}.url": self.url, f"submodule.{name}.update": "checkout"}  # fmt: skip
        return tuple(word for key, value in said.items() for word in ("-c", f"{key}={value}"))


def beside(url: str, relative: str) -> str:
    """Where `../lib.git` is, said of a repository: as git reads it, also for `host:team/app`."""
    url = url.rstrip("/")
    while relative.startswith(("./", "../")):
        step, _, relative = relative.partition("/")
        if step == "..":
            url = url[: max(url.rfind("/"), url.rfind(":") + 1)]
    return (url if url.endswith(":") else url + "/") + relative.rstrip("/")


def whisper(text: bytes) -> int:
    """What one program alone shall hear, again and again: a read of so many bytes is one telling of it. What stands in
    an environment is shown by `ps e` to all programs of the same user, and they can open what lies in a file or pipe;
    a socket nobody else can open."""
    from _socket import socketpair  # the module above it takes longer to import than this takes

    ours, theirs = socketpair()
    ours.setblocking(False)
    ours.send(text * 32)
    ours.close()
    return theirs.detach()


GIT_ENDS = {"cancelled": "the run was cancelled", "failed": "it was still running after {git_secs} s"}


def folder_name(text: str) -> str:
    """Readable, of bounded length, and another one for every text."""
    try:  # hashlib would load all of OpenSSL
        from _sha256 import sha256  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        from hashlib import sha256
    readable = re.sub(r"[^A-Za-z0-9]+", "-", re.sub(r"^\w+://([^/]*@)?|\.git/?$", "", text)).strip("-")[-60:]
    return f"{readable}-{sha256(text.encode()).hexdigest()[:12]}"


def put_right(path: str, content: bytes) -> None:
    if content_of(path) != content:
        replace_file(path, content)


def content_of(path: str) -> bytes | None:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return None


def join(path: str, own: str) -> None:
    """Worktree and mirror point at each other, whatever an agent made of that."""
    put_right(own + "/commondir", b"../..\n")
    put_right(own + "/gitdir", os.fsencode(path) + b"/.git\n")
    put_right(path + "/.git", b"gitdir: " + os.fsencode(own) + b"\n")


class Spare:
    """A worktree that no task has yet, made while nobody waits, where making one takes long: of a large repository the
    next task takes it over, and writes only what has changed since. Who holds the lock makes it or takes it."""

    LEAST_DISK = 4 << 30  # bytes that stay free; nobody has asked for it
    PATIENCE_SECS = 60

    def __init__(self, mirror: Mirror, watch: Watch, limits: Json) -> None:
        self._mirror, self._watch, self._limits = mirror, watch, limits
        self.path, self.own = mirror.path[: -len(".git")] + ".spare", mirror.path + "/worktrees/spare"
        self.lock = Lock(self.path + ".lock")

    def become(self, path: str, own: str) -> bool:
        """Have it at these places, if there is one; whoever makes one now is waited for."""
        if not os.path.exists(self.lock.path):  # no checkout here has taken long
            return False
        with self.lock as lock:
            if not self._watch.acquire(lock, self._limits["git_secs"]) or not self._is_whole():
                return False
            try:
                os.rename(self.own, own)
                os.rename(self.path, path)
                return True
            except OSError:
                erase(own)
                return False

    def make(self, commit: str, like: str) -> None:
        """Begin to make it, like another worktree, in a process that is no part of the run and may outlive us."""
        pid = os.fork()
        if pid == 0:
            self._make(commit, like)
        self._watch.apart.append(pid)

    def wait(self) -> None:
        """Until it is made, if it is being made by us."""
        until = time.monotonic() + self.PATIENCE_SECS
        while any(map(still_works, self._watch.apart)) and not self._watch.told_to_stop and time.monotonic() < until:
            self._watch.pause(0.05)

    def drop_if_last(self) -> None:
        """No task of its repository is left on this host: neither is it."""
        with self.lock as lock:
            if not os.path.exists(lock.path) or not lock.acquire():
                return
            worktrees = self._mirror.path + "/worktrees"
            if not os.path.isdir(worktrees) or os.listdir(worktrees) in ([], ["spare"]):
                self._erase()

    def _is_whole(self) -> bool:
        """The index is the last thing a checkout writes."""
        return os.path.exists(self.own + "/index") and os.path.isdir(self.path)

    def _make(self, commit: str, like: str) -> NoReturn:
        """Git holds the lock, too, in case we die before it is done."""
        try:
            signal.set_wakeup_fd(-1)
            os.closerange(3, 4096)  # the locks of the run
            for number in OURS:
                signal.signal(number, signal.SIG_DFL)
            os.setsid()
            os.nice(5)
            signal.alarm(int(self._limits["git_secs"]))
            lock = Lock(self.lock.path)
            if lock.acquire() and not self._is_whole():
                self._erase()
                if disk_free({"home": like}) - disk_used(like) > self.LEAST_DISK:
                    lock.bequeath()
                    self._check_out(commit)
        except OSError:  # there is none, then
            pass
        finally:
            os._exit(0)

    def _check_out(self, commit: str) -> None:
        make_folder(self.own)
        make_folder(self.path)
        put_right(self.own + "/HEAD", f"{commit}\n".encode())
        join(self.path, self.own)
        where = ("-C", self.path, "--git-dir=" + self.own, "--work-tree=" + self.path)
        argv, env = (
            [*GIT, *where, "checkout", "--quiet", "--force", "--detach", commit],
            self._mirror.environment(False),
        )
        keep_apart()
        if os.spawnve(os.P_WAIT, program("git", env["PATH"]), argv, env):
            self._erase()

    def _erase(self) -> None:
        erase(self.own)
        erase(self.path)


OURSELVES = ("agent-fleet", "agent-fleet@localhost")


def signed(name: str, email: str) -> dict[str, str]:
    """Whose commit it shall be, as git wants to hear it."""
    return {"GIT_AUTHOR_NAME": name, "GIT_AUTHOR_EMAIL": email,
            "GIT_COMMITTER_NAME": name, "GIT_COMMITTER_EMAIL": email}  # fmt: skip


def worktree_path(request: Json) -> str:
    return os.path.join(fleet_folder(request), "work", request["instance"], request["task"])


def worktree_lock(request: Json) -> str:
    """Beside the worktree, under a name no task can have."""
    folder, task = os.path.split(worktree_path(request))
    make_folder(folder)
    return os.path.join(folder, f".{task}.lock")


class Worktree:
    """Where a task's runs work, one after the other: a git worktree, or a plain folder without a repository."""

    def __init__(self, request: Json, run: Run, watch: Watch, limits: Json) -> None:
        self.path, self.run, self._watch, self._limits = worktree_path(request), run, watch, limits
        self._instance, self._task = request["instance"], request["task"]
        repository: Json = request.get("repository") or {"base": "", "branch": ""}
        self.base, self.branch = repository["base"], repository["branch"]
        self._reported: str | None = repository.get("pushed")
        self.mirror = Mirror(request, run, watch, limits) if "url" in repository else None
        self.is_first = False  # on this host, of its repository
        self.keeps_lfs = False
        self.warnings: list[str] = []
        self._modules: list[Module] = []
        if self.mirror:  # where git keeps HEAD and index of this worktree
            self.own = os.path.join(self.mirror.path, "worktrees", folder_name(f"{self._instance}/{self._task}"))
            self.spare = Spare(self.mirror, watch, limits)

    def prepare(self) -> str | None:
        """Ready for the agent; the commit it begins from."""
        if not self.mirror:
            make_folder(self.path)
            return None
        make_folder(os.path.dirname(self.mirror.path))
        self._fetch()
        if self._is_whole():  # from here on nobody else is in the way: it is all this task's own
            self._go_on()
        else:
            self._make()
        if os.path.exists(self.path + "/.gitmodules"):
            self._fetch_modules(self.path, self.own, self.mirror.url)
        if self.keeps_large_files():
            self._lfs("pull")
        return self.head()

    def _fetch(self) -> None:
        assert self.mirror
        with self.mirror.lock as lock:
            if not self._watch.acquire(lock, self._limits["git_secs"]):
                raise Ended("failed", f"other runs kept {self.mirror.path} busy: start the run again")
            self.is_first = self.is_first or not os.path.isdir(self.mirror.path + "/objects")
            self.mirror.refresh(self.base, self.branch)

    def replaceable(self) -> list[str]:
        """Warnings of programs that hear the forge's password and are not safe from this user."""
        names = ("git", "git-lfs") if self.keeps_lfs else ("git",) if self.mirror else ()
        found = [(name, program(name, self.mirror.search_path)) for name in names if self.mirror and is_here(name)]
        return [
            REPLACEABLE.format(name, os.path.dirname(at)) for name, at in found if os.geteuid() and not is_guarded(at)
        ]

    def keeps_large_files(self) -> bool:
        """Whether Git LFS keeps some of its files. Ended where this host cannot have them: pointers are no work."""
        return self._points(self.path, self.own)

    def _points(self, path: str, own: str, **how: Any) -> bool:
        """As .gitattributes say. The index names every file, and is read by hand: asking git costs a process."""
        assert self.mirror
        if b".gitattributes" not in (content_of(own + "/index") or b""):
            return False
        words = ("ls-files", "-z", "--", ":(glob)**/.gitattributes")
        names = self.mirror.git(*words, where=self._where(path, own), **how).split("\0")
        if not any(b"filter=lfs" in (content_of(os.path.join(path, name)) or b"") for name in names if name):
            return False
        self.keeps_lfs = True
        if not is_here("git-lfs"):
            why = "this repository keeps files in Git LFS, and git-lfs is not on this host: install it there"
            raise Ended("failed", why, "lfs_missing")
        return True

    def _lfs(self, *words: str, patience: float = 0) -> None:
        assert self.mirror
        self.mirror.lfs(*words, where=self._where(), patience=patience)

    def _fetch_modules(self, path: str, own: str, url: str, **how: Any) -> None:
        """Submodules as the repository has them, and theirs. Their git folders lie where git itself puts them; without
        the password, which only the fetch into the mirror needs: an agent may have written to them."""
        assert self.mirror
        where = self._where(path, own)
        words = ("config", "-z", "--file", path + "/.gitmodules", "--get-regexp", r"^submodule\..*\.(path|url|update)$")
        code, said, _ = self.mirror.try_git(*words, where=where, **how)  # 1: there is none
        named: Json = {}
        for key, _, value in (line.partition("\n") for line in said.split("\0") if line and not code):
            named.setdefault(key[len("submodule.") : key.rindex(".")], {})[key.rpartition(".")[2]] = value
        asked = [f":(top,literal){its['path']}" for its in named.values() if its.get("path")]
        links = self.mirror.git("ls-files", "-s", "-z", "--", *asked, where=where, **how).split("\0") if asked else []
        commits = {line.partition("\t")[2]: line.split()[1] for line in links if line.startswith("160000 ")}
        for name, its in named.items():
            commit = commits.get(its.get("path", ""))
            if commit and its.get("url") and its.get("update") != "none":
                address = beside(url, its["url"]) if its["url"].startswith(("./", "../")) else its["url"]
                self._fetch_module(name, its["path"], address, commit, where, how)

    def _fetch_module(self, name: str, inner: str, url: str, commit: str, where: tuple[str, ...], how: Json) -> None:
        assert self.mirror
        module, path = Module(self.mirror, self.run.base, url), os.path.join(where[1], inner)
        own = os.path.join(where[2].partition("=")[2], "modules", name)
        make_folder(os.path.dirname(module.path))
        self._modules.append(module)
        with module.lock as lock:
            if not self._watch.acquire(lock, self._limits["git_secs"]):
                raise Ended("failed", f"other runs kept {module.path} busy: start the run again")
            module.bring(commit)
            words = ("submodule", "--quiet", "update", "--init", "--", inner)
            self.mirror.git(*words, where=(*module.options(name), *where), **how)
        its: Json = {"env": {"GIT_COMMON_DIR": own}}
        if self._points(path, own, **its):
            module.lfs("fetch", "origin", commit, where=("--git-dir=" + module.path,))
            settings = content_of(own + "/config") or b""
            if b'[filter "lfs"]' not in settings:
                storage = b"\tstorage = %s/lfs\n" % os.fsencode(module.path)
                put_right(own + "/config", settings + LFS_CONFIG + storage)
            self.mirror.git("lfs", "checkout", where=self._where(path, own), **its)
        if os.path.exists(path + "/.gitmodules"):
            self._fetch_modules(path, own, url, **its)

    def _is_whole(self) -> bool:
        """The index is the last thing a checkout writes. Where there is none, nobody has worked yet."""
        return os.path.exists(self.own + "/index") and os.path.isdir(self.path)

    def _make(self) -> None:
        """`git worktree add` by hand: that takes four processes, each looking at every other worktree. Where a spare
        lies ready only what has changed since is written."""
        begin = self._on_forge() or self._ref(f"refs/remotes/origin/{self.base}") or ""
        for folder in (self.path, self.own):
            erase(folder)
        began, is_spare = time.monotonic(), self.spare.become(self.path, self.own)
        make_folder(self.own)
        make_folder(self.path)
        put_right(self.own + "/HEAD", f"{begin}\n".encode())
        self._join()
        self._git("checkout", "--quiet", "--force", "--no-track", "-B", self.branch, begin)
        if is_spare or time.monotonic() - began > self._limits["spare_secs"]:
            self.spare.make(begin, self.path)

    def await_spare(self) -> None:
        """The second task on a host shall find a spare, however short the first one was."""
        if self.is_first:
            self.spare.wait()

    def _join(self) -> None:
        join(self.path, self.own)

    def _go_on(self) -> None:
        """A further round: on the branch, with what others pushed to it if we have nothing of our own."""
        self._join()
        if os.path.exists(self.own + "/index.lock"):  # of a git that was killed: no other run works here
            os.unlink(self.own + "/index.lock")
        self.come_back()
        ours, theirs, branch = self.head(), self._on_forge(), self._ref(f"refs/heads/{self.branch}")
        if content_of(self.own + "/HEAD") != f"ref: refs/heads/{self.branch}\n".encode():
            if branch and not self._holds(branch, inside=ours):
                ours = self._leave_off(branch)
            else:
                self._git("checkout", "--quiet", "-B", self.branch)
        if theirs and theirs != ours:
            if self._holds(ours, inside=theirs):
                self._move_to(theirs, "merge", "--quiet", "--ff-only")
            elif self._is_pushed(ours):  # and somebody has made it another since: rebased, or taken back
                self._move_to(theirs)

    def _move_to(self, commit: str, *how: str) -> None:
        """Have the branch there. What a killed run left uncommitted stays as it is, or is kept beside it where it is in
        the way: the next run would meet it, too."""
        anew = ("checkout", "--quiet", "-B", self.branch)
        try:
            self._git(*(how or anew), commit)
        except Ended as why:
            ours = why.end == "failed" and self.head()
            if ours:
                self.commit(f"Work on {self._task}, left by a run that was ended", *OURSELVES)
            if not ours or self.head() == ours:
                raise
            kept = self._keep(self.head())
            self.warnings.append(f"what an earlier run left was in the way of {self.branch}: it is kept as {kept}")
            self._git(*anew, commit)

    def _leave_off(self, branch: str) -> str:
        """A run that was killed in the midst of a rebase, say, stands beside the branch: what it had is kept, and the
        branch gone on with as it was. Returns its commit."""
        self.commit(f"Work on {self._task}, left by a run that was ended", *OURSELVES)
        kept = self._keep(self.head())
        for name in ("rebase-merge", "rebase-apply", "sequencer"):
            erase(os.path.join(self.own, name))
        for name in ("CHERRY_PICK_HEAD", "MERGE_HEAD", "REBASE_HEAD", "REVERT_HEAD"):
            remove(os.path.join(self.own, name))
        self._git("checkout", "--quiet", "--force", "-B", self.branch, branch)
        self.warnings.append(f"an earlier run was ended beside {self.branch}: what it had is kept as {kept}")
        return branch

    def come_back(self) -> None:
        """From an earlier commit of the branch, for which the agent has left it: looking is nothing to deliver."""
        ours, branch = self.head(), self._ref(f"refs/heads/{self.branch}")
        if branch and branch != ours and self._holds(ours, inside=branch):
            self._move_to(branch)

    def _holds(self, commit: str, inside: str) -> bool:
        assert self.mirror
        return commit == inside or self.mirror.try_git("merge-base", "--is-ancestor", commit, inside)[0] == 0

    def _is_pushed(self, commit: str) -> bool:
        """Whether a run of ours has pushed it to the branch."""
        return any(self._holds(commit, inside=pushed) for pushed in self._pushed())

    def _pushed(self) -> list[str]:
        """The newest that runs of ours pushed to the branch: from here, and as was reported, from another host or by an
        older supervisor, which took no note of it."""
        known = {self._ref(f"refs/pushed/{self.branch}"), self._reported}
        return [commit for commit in known if commit]

    def _on_forge(self) -> str | None:
        return self._ref(f"refs/remotes/origin/{self.branch}")

    def _ref(self, name: str) -> str | None:
        return self.mirror.ref(name) if self.mirror else None

    def _git(self, *words: str, **how: Any) -> str:
        assert self.mirror
        return self.mirror.git(*words, where=self._where(), **how)

    def _where(self, path: str = "", own: str = "") -> tuple[str, ...]:
        """This worktree, or a submodule's."""
        path, own = path or self.path, own or self.own
        return ("-C", path, "--git-dir=" + own, "--work-tree=" + path)

    def head(self) -> str:
        head = (content_of(self.own + "/HEAD") or b"").decode("utf-8", "replace").strip()
        commit = self._ref(head[5:]) if head.startswith("ref: ") else head
        if not commit:
            raise Ended("failed", f"{self.path} has no commit at its HEAD: look at it, then release the task")
        return commit

    def commit(self, message: str, name: str, email: str) -> list[str]:
        """What the agent left lying, but for repositories of their own, which are returned: git would keep of each only
        the name of a commit that nobody else has. The agent's own commits stay as they are."""
        self._let_go_of_nested()
        dirty = self._git("status", "--porcelain", "-z", "--untracked-files=all").split("\0")
        nested = [line[3:-1] for line in dirty if line.startswith("?? ") and line.endswith("/")]
        if any(dirty):
            self._git("add", "--all", "--", ":/", *(f":(top,exclude,literal){path}" for path in nested))
            if self._git("diff", "--cached", "--name-only"):
                words = ("commit", "--quiet", "--no-verify", "--allow-empty-message", "-m", message)
                self._git(*words, env=signed(name, email))
        return nested

    def _let_go_of_nested(self) -> None:
        """Those that the agent added itself; a submodule is in .gitmodules."""
        assert self.mirror
        there = self._on_forge() or f"refs/remotes/origin/{self.base}"
        words = ("diff", "--cached", "--raw", "--no-abbrev", "--no-renames", "-z", there)
        news = self.mirror.try_git(*words, where=self._where())[1].split("\0")
        links = [path for facts, path in zip(news[::2], news[1::2]) if re.match(r":(?!160000)\d+ 160000 ", facts)]
        modules = (content_of(self.path + "/.gitmodules") or b"") if links else b""
        known = re.findall(rb"(?m)^\s*path\s*=\s*(.+?)\s*$", modules)
        nested = [path for path in links if os.fsencode(path) not in known]
        if nested:
            self._git("update-index", "--force-remove", "--", *nested)

    def commits_since(self, base: str) -> list[str]:
        """The run's own: not what it took from others who pushed to the branch."""
        others = [f"^{theirs}" for theirs in [self._on_forge()] if theirs]
        return self._git("rev-list", "--reverse", "--max-count=100", f"{base}..{self.head()}", *others).split()

    def join_others(self, name: str, email: str) -> bool:
        """What somebody else pushed to the branch and we lack, merged; whether there was any. Ended where it cannot be:
        ours is kept beside it, and nothing of theirs is overwritten or what they took back put there again."""
        head, theirs = self.head(), self._on_forge()
        if theirs and self._brings_back(head, theirs):
            raise self._rewritten(head, theirs)
        if not theirs or self._holds(theirs, inside=head) or self._holds(head, inside=theirs):
            return False
        if self._is_pushed(theirs):  # it is our own, and the agent wrote it anew: amended, rebased
            return False
        words = ("merge", "--quiet", "--no-verify", "-m", f"Merge what others pushed to {self.branch}")
        try:
            self._git(*words, theirs, env=signed(name, email))
        except Ended as why:
            if why.end != "failed":
                raise
            self._git("reset", "--quiet", "--merge", head)
            said = f"what somebody pushed to {self.branch} conflicts with this work: merge origin/{self.branch} into it"
            raise Ended("failed", f"{said}; it is kept as {self._keep(head)}", "branch_moved") from None
        if self.keeps_large_files():
            self._lfs("pull")
        return True

    def deliver(self) -> bool:
        """Push what the forge lacks, or without what the agent dropped of our own; whether the branch there is at our
        head. Moved where somebody else was faster."""
        assert self.mirror
        head, known = self.head(), self._on_forge()
        there = known or f"refs/remotes/origin/{self.base}"
        if not self._git("rev-list", "--max-count=1", head, "^" + there):
            if known in (None, head) or not self._is_pushed(known):
                return known == head
        self._check_modules(there, head)
        self._push_large_files()
        is_anew = bool(self.mirror.push_to and known and not self._holds(known, inside=head))
        if is_anew:  # by force, since it is ours; there is no lease, so we look as late as we can
            self._fetch()
            if self._on_forge() != known:
                raise Moved
        try:
            self.mirror.push(head, self.branch, known, is_anew)
        except Ended as why:
            if not self.mirror.forge_has(head, self.branch):
                self._look_again(head, known, why)
        return True

    def _look_again(self, head: str, known: str | None, why: Ended) -> None:
        """A push was refused. Moved, if somebody else has pushed to the branch since we looked."""
        assert self.mirror
        try:
            self._fetch()
        except Ended:
            raise why from None
        theirs = self._on_forge()
        if theirs == known:
            raise why
        if known and theirs and not self._holds(known, inside=theirs):
            raise self._rewritten(head, theirs)
        raise Moved

    def _brings_back(self, head: str, theirs: str) -> bool:
        """Whether it stands on what we had pushed and somebody took from the branch since."""
        return any(self._holds(one, inside=head) and not self._holds(one, inside=theirs) for one in self._pushed())

    def _rewritten(self, head: str, theirs: str) -> Ended:
        """Once ours is kept beside it, the next run begins with what they made of the branch."""
        said = f"somebody took commits back from {self.branch} on the forge, which this work stands on"
        why = Ended("failed", f"{said}; it is kept as {self._keep(head)}", "branch_rewritten")
        self._git("checkout", "--quiet", "--force", "-B", self.branch, theirs)
        return why

    def _check_modules(self, there: str, head: str) -> None:
        """We push to one repository: a commit that points at work which only lies here is none. Ended where it does."""
        if not os.path.exists(self.path + "/.gitmodules"):
            return
        dirty = self._git("status", "--porcelain", "--ignore-submodules=untracked").splitlines()
        lost = [line[3:] for line in dirty if not line.startswith("??")]
        for line in self._git("diff", "--raw", "--no-abbrev", "--no-renames", there, head).splitlines():
            facts, _, path = line.partition("\t")  # ":160000 160000 <sha> <sha> M" of a submodule that moved on
            if facts.split()[1] == "160000" and not self._is_fetched(facts.split()[3]):
                lost.append(path)
        if lost:
            why = f"the agent changed the submodule {lost[0]}, which is not pushed from here: have it changed by itself"
            raise Ended("failed", why, "submodule_changed")

    def _is_fetched(self, sha: str) -> bool:
        """Whether a commit of a submodule came from that one's own forge."""
        assert self.mirror
        asked = f"git for-each-ref --count=1 --contains={sha} refs/remotes 2>/dev/null || :"
        return bool(self.mirror.git("submodule", "--quiet", "foreach", asked, where=("-C", self.path)))

    def _push_large_files(self) -> None:
        """Before the commits that point at them."""
        if self.keeps_large_files():
            self._lfs("push", "origin", "HEAD", patience=self._limits["grace_secs"])

    def give_up(self) -> str | None:
        """Delete the worktree; where its work went that was nowhere else."""
        saved = None
        if os.path.lexists(self.path):
            if self.mirror and self._is_whole():
                saved = self._save()
            elif os.listdir(self.path):
                saved = self._pack()
            erase(self.path)
        if self.mirror and os.path.exists(self.mirror.path):
            with self.mirror.lock as lock:
                if self._watch.acquire(lock, PATIENCE_SECS):
                    erase(self.own)
                    for place in ("heads", "pushed"):
                        self.mirror.try_git("update-ref", "-d", f"refs/{place}/{self.branch}")
                    self.spare.drop_if_last()
        return saved

    def _save(self) -> str | None:
        assert self.mirror
        left = self.commit(f"Work on {self._task}, saved at its release", *OURSELVES)
        own = [path for path in left if b"[remote " not in (content_of(f"{self.path}/{path}/.git/config") or b"")]
        head, packed = self.head(), self._pack(*own) if own else ""
        is_news = self._git("rev-list", "--max-count=1", head, "--not", "--remotes=origin")
        return " and ".join(filter(None, [self._keep(head) if is_news else "", packed])) or None

    def _keep(self, head: str) -> str:
        """Work that cannot go to its branch: on the forge under a name of its own, or in a bundle; which of them."""
        assert self.mirror
        try:
            self._push_large_files()
            self.mirror.push(head, "wip/" + self._task)
            return f"refs/heads/wip/{self._task}"
        except Ended:
            place = self._place_to_save("bundle")
            self._git("bundle", "create", "--quiet", place, "HEAD", "--not", "--remotes=origin")
            return place

    def _pack(self, *names: str) -> str:
        """A folder without git in it is saved as it is, and so is a repository that was begun within ours."""
        import tarfile

        place = self._place_to_save("tar.gz")
        with tarfile.open(place, "w:gz") as pack:
            for name in names or ("",):
                pack.add(os.path.join(self.path, name), os.path.join(self._task, name))
        return place

    def _place_to_save(self, kind: str) -> str:
        folder, fence = os.path.join(self.run.base, "saved"), self.run.name.rpartition(".")[2]
        make_folder(folder)
        place = os.path.join(folder, f"{self._instance}-{self._task}-{fence}")
        free = (f"{place}{number}.{kind}" for number in ("", *(f".{n}" for n in range(2, 100))))
        return next(name for name in free if not os.path.exists(name))

    def tidy(self) -> None:
        """Let git pack the mirrors when it thinks fit, now that nobody waits for us."""
        if self.mirror:
            self._watch.told_to_stop = None
            self.mirror.pack()
            for module in self._modules:
                with module.lock as lock:  # nobody clones from it meanwhile
                    if lock.acquire():
                        module.pack()


# ---------------------------------------------------------------------------------------- what a host can do
def versions_of(commands: Json, apart: bool = False) -> dict[str, str | None]:
    """The first line each command prints, all asked at the same time, within 5 s."""
    until = time.monotonic() + 5
    asked = {name: ask_version(argv, apart) for name, argv in commands.items()}
    return {name: first_line(child, until) if child else None for name, child in asked.items()}


def ask_version(argv: list[str], apart: bool) -> Popen[bytes] | None:
    from subprocess import DEVNULL, PIPE, Popen

    try:
        how = {"stdin": DEVNULL, "stdout": PIPE, "stderr": DEVNULL, "preexec_fn": keep_apart if apart else None}
        return Popen(argv, env=environment(), start_new_session=True, **how)  # type: ignore[call-overload,no-any-return]
    except (OSError, TypeError, ValueError):
        return None


def first_line(child: Popen[bytes], until: float) -> str | None:
    from subprocess import TimeoutExpired

    try:
        said = child.communicate(timeout=max(0.1, until - time.monotonic()))[0].decode("utf-8", "replace")
        return said.partition("\n")[0].strip() if child.returncode == 0 else None
    except TimeoutExpired:
        send(signal.SIGKILL, members(child.pid))
        child.wait()
        return None


def search_path(path: str) -> str:
    """PATH, and where people's own programs lie, which sshd leaves out for whoever does not log in."""
    known = path.split(os.pathsep)
    own = [os.path.expanduser(place) for place in OWN_PROGRAMS]
    return os.pathsep.join([*known, *(place for place in own if place not in known and os.path.isdir(place))])


def path_to(name: str, path: str) -> str:
    """PATH as it is, if that leads to the program; else with what a person has there who logs in."""
    try:
        program(name, path)
        return path
    except FileNotFoundError:
        shell = os.environ.get("SHELL") or "/bin/sh"
        theirs = versions_of({"": [shell, "-lic", 'printf %s "$PATH"']}, apart=True)[""]
        return path + os.pathsep + theirs if theirs else path


def guarded(path: str, *names: str) -> str:
    """A PATH for programs that hear passwords: what this user cannot write to comes first, and the rest only where one
    of these programs is nowhere else. A CLI may have put one of its own into ~/.local/bin."""
    folders = [folder for folder in path.split(os.pathsep) if folder]
    safe = [folder for folder in folders if is_guarded(folder)]
    is_enough = safe and all(has(os.pathsep.join(safe), name) or not has(path, name) for name in names)
    return os.pathsep.join(safe if is_enough else [*safe, *folders])


def is_guarded(place: str) -> bool:
    """Whether this user can change neither a place nor what leads to it, under either of its names. Root always can."""
    names = (os.path.abspath(place), os.path.realpath(place))
    ends = [(name, end) for name in names for end in (len(name), *(at for at, sign in enumerate(name) if sign == "/"))]
    try:
        above = {name[:end] or "/" for name, end in ends}
        return not any(os.lstat(one).st_uid == os.geteuid() or os.access(one, os.W_OK) for one in above)
    except OSError:
        return False


OWN_PROGRAMS = (
    "~/.local/bin",
    "~/bin",
    "~/.npm-global/bin",
    "~/.bun/bin",
    "~/.cargo/bin",
    "~/.volta/bin",
    "/usr/local/bin",
)


def with_flags(agent: Json, apart: bool) -> list[str]:
    """The agent's argv with the flags that fit the installed version, which is asked only where it matters."""
    rules: list[Json] = agent.get("flags") or []
    version = None
    if agent.get("version") and any(rule.get("since") or rule.get("until") for rule in rules):
        version = versions_of({"": agent["version"]}, apart)[""]
    return flags_for(agent["argv"], rules, version)


def flags_for(argv: list[str], rules: list[Json], version: str | None) -> list[str]:
    """The argv for a version: its flags stand where `{flags}` does, else at the end. A version that nobody knows gets
    those flags only that every version has."""
    mine = version_in(version or "")
    fitting = [
        rule
        for rule in rules
        if (not rule.get("since") or (mine and mine >= version_in(rule["since"])))
        and (not rule.get("until") or (mine and mine < version_in(rule["until"])))
    ]
    flags = [word for rule in fitting for word in rule.get("argv") or []]
    if "{flags}" not in argv:
        return argv + flags
    at = argv.index("{flags}")
    return argv[:at] + flags + argv[at + 1 :]


def version_in(text: str) -> tuple[int, ...]:
    """The first version number in a text: `2.1.330 (Claude Code)` -> (2, 1, 330)."""
    found = re.search(r"\d+(?:\.\d+)+", text)
    return tuple(int(part) for part in found.group().split(".")) if found else ()


def memory_available() -> int | None:
    lines = (content_of("/proc/meminfo") or b"").splitlines()
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(b"MemAvailable:")), None)


if __name__ == "__main__":
    main()
