"""Types of the JSON that a supervisor takes and answers; `workers.protocol` frames it."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NotRequired, TypedDict

from app.clis.command_line import FilledTemplate

Stream = Literal["stdout", "stderr"]
PIECES: tuple[Stream, ...] = ("stdout", "stderr")
Body = Mapping[str, object]  # of a request with any verb


class RunLimits(TypedDict):
    """Limits of a run, in seconds and bytes. What a log has between head and tail is dropped."""

    wall_secs: int
    silence_secs: int | None
    grace_secs: int  # between TERM and KILL
    log_head_bytes: int
    log_tail_bytes: int


class PromptedCli(FilledTemplate):
    """A CLI's call with its prompt."""

    prompt: str


class CliCall(TypedDict):
    """How to call the CLI, and how often the supervisor shows that it lives."""

    agent: PromptedCli
    limits: RunLimits
    heartbeat_secs: int


class RepositoryRequest(TypedDict):
    """Where the work is fetched from and pushed to. Without `push_to`, that is the branch."""

    url: str
    base: str
    branch: str | None
    push_to: NotRequired[str]
    push_options: NotRequired[list[str]]
    fetch_from: NotRequired[str]
    pushed: NotRequired[Sequence[str]]  # commits that earlier runs pushed


class WorktreeRequest(TypedDict):
    """A run, its worktree (`task`), its repository, and the login there (`username`, `password`)."""

    run: str
    task: str
    repository: RepositoryRequest | None
    credentials: Mapping[str, str] | None


class ReleaseRequest(WorktreeRequest):
    """Delete a run's folder, and the worktree if `worktree` is true."""

    worktree: bool


class StartRequest(WorktreeRequest, CliCall):
    """Start a run. `validation` are the commands that check the work."""

    validation: Sequence[str]
    delivery: Mapping[str, str] | None  # message, author_name, author_email


class HookedStartRequest(StartRequest):
    """Start a run with hooks: commands by the moment of the run."""

    hooks: Mapping[str, Sequence[str]]


class PieceAnswer(TypedDict):
    """A piece of a log, `size` bytes long on the host. Its bytes are `length` bytes from `at`, behind the JSON."""

    offset: int
    size: int
    at: int
    length: int
    data: bytes  # added when the whole answer is read


class RunAnswer(TypedDict, total=False):
    """The answer about one run. `noted` is what the CLI wrote to its session file, `beat_age` seconds."""

    known: bool
    step: str | None
    result: Mapping[str, Any] | None  # the supervisor's result.json
    beat_age: float | None
    noted: str | None
    stdout: PieceAnswer
    stderr: PieceAnswer


class SupervisorAnswer(TypedDict, total=False):
    """The answer to any verb. `error` says what could not be done; then nothing else is there."""

    error: str
    state: str  # start, cancel
    pid: int | None  # start
    saved: str | None  # release: the ref to which unpushed work was saved
    runs: dict[str, RunAnswer]  # poll
    disk_free: int  # poll, probe: bytes
    now: float  # probe, as all below: seconds since 1970
    boot_id: str | None
    git: str | None
    python: str | None
    memory_available: int | None
    load: list[float] | None
    cpus: float | None
    clis: dict[str, str | None]
    missing: list[str]
    lfs: bool
    apart: bool
