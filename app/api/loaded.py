"""Types of the request bodies and queries that the schemas of `requests` load, under the same names."""

from typing import NotRequired, TypedDict


class TaskFilter(TypedDict):
    """Filters of the task list, and its page."""

    status: NotRequired[str]
    agent_id: NotRequired[str]
    host: NotRequired[str]
    execution_mode: NotRequired[str]
    repository: NotRequired[str]
    limit: int
    after: NotRequired[str]


class TaskQuery(TypedDict):
    """Whether a task is shown with its events."""

    events: bool


class LogQuery(TypedDict):
    """The part of a log to read. `run` None: the newest one."""

    run: int | None
    stream: str
    offset: int


class Assignment(TypedDict):
    """The target of a task: an agent or a host."""

    agent_id: str | None
    host: str | None
    execution_mode: str | None


class Registration(TypedDict):
    """An agent that registers. `metadata` is its own JSON."""

    agent_id: str
    agent_type: str
    hostname: str
    capabilities: list[str]
    max_concurrency: int
    metadata: dict[str, object]


class AgentOnly(TypedDict):
    """The agent that calls."""

    agent_id: str


class Holding(TypedDict):
    """A task that the agent holds, by its lease."""

    task_id: str
    lease: int


class Heartbeat(AgentOnly):
    """A heartbeat. `tasks` None: the agent does not say what it holds."""

    tasks: list[Holding] | None


class Dequeue(AgentOnly):
    """A request for work. `capabilities` None: all that the agent registered with."""

    capabilities: list[str] | None
    wait_secs: float
    max_tasks: int


class AgentFilter(TypedDict, total=False):
    """Filters of the agent list."""

    capability: str
    status: str


class Report(AgentOnly):
    """A report of progress, or of failure. `lease` None: the newest one. `progress` is the agent's own JSON."""

    status: str
    lease: int | None
    message: str | None
    progress: object


class LogPiece(TypedDict):
    """Bytes of a run's output in base64, from an offset."""

    lease: int
    offset: int
    data: str
    stream: str


class Artifact(TypedDict):
    """A result of the work. Its type says which other field is set."""

    type: str
    url: NotRequired[str]
    sha: NotRequired[str]
    ref: NotRequired[str]
    path: NotRequired[str]


class Spent(TypedDict, total=False):
    """Tokens and dollars that a run used."""

    input_tokens: int | None
    cached_tokens: int | None
    output_tokens: int | None
    cost_usd: float | None


class Check(TypedDict):
    """A validation command that was run."""

    command: str
    exit_code: int
    seconds: NotRequired[float | None]
    tail: NotRequired[str | None]


class Receipt(AgentOnly):
    """The end of the work and its artifacts."""

    task_id: NotRequired[str]
    status: str
    lease: int | None
    duration_seconds: float | None
    summary: str | None
    artifacts: list[Artifact]
    error: str | None
    usage: Spent | None
    checks: list[Check] | None
    session: str | None
    cli_version: str | None
    failure: str | None
    resets_at: str | None
