"""The fleet over HTTP: one call at a time in the contract's words, with a token that renews itself."""

import random
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx
import structlog

from workers.agent.state_dir import Folder

Json = dict[str, Any]
SECONDS = 15.0
FIRST_PAUSE_SECS, LONGEST_PAUSE_SECS = 0.5, 30.0
ANSWERED_BY_AGENT = ("/agents/heartbeat", "/tasks/dequeue", "/agents/deregister")  # here a 404 means us
AWAY = frozenset({"busy", "broken", "unavailable"})
log = structlog.get_logger()


class Away(Exception):
    """The server did not answer, or not now: the same call may go through later."""

    def __init__(self, why: str, retry_after: float | None = None) -> None:
        super().__init__(why)
        self.retry_after = retry_after


class Refusal(Exception):
    """The server's no, with its sentence."""

    def __init__(self, status: int, body: Json) -> None:
        super().__init__(str(body.get("error")))
        self.status, self.body = status, body


class Unwelcome(Exception):
    """The server lets us in by no token that we have."""


@dataclass(frozen=True)
class Welcome:
    """The pace that the server asks for."""

    beat_secs: float
    lease_secs: float

    @property
    def grace_secs(self) -> float:
        """How long a CLI may take to end when its lease does."""
        return min(10.0, self.lease_secs / 6)


class Server:
    """The other end. `about` is what we register with."""

    def __init__(self, address: str, folder: Folder, about: Json, enrol_token: str | None) -> None:
        self.welcome: Welcome | None = None
        self._folder, self._about, self._enrol_token = folder, about, enrol_token
        self._token = folder.token()
        self._lock = threading.Lock()
        limits = httpx.Limits(max_connections=None)
        self._http = httpx.Client(base_url=f"{address}/api/v1", limits=limits)

    def register(self) -> Welcome:
        """Introduce ourselves by our own token, else by the enrolment token. Raises Away, Unwelcome."""
        with self._lock:
            return self._register()

    def call(self, path: str, body: Json, key: str | None = None, wait: float = 0, seconds: float = SECONDS) -> Json:
        """POST `body`; an empty answer is {}. Raises Away, Refusal, Unwelcome."""
        for last in (False, True):
            shown = self._token
            try:
                return self._post(path, body, shown, key, seconds + wait)
            except Refusal as no:
                unknown = no.status == 401 or (no.status == 404 and path in ANSWERED_BY_AGENT)
                if last or not unknown:
                    raise
                self._renew(instead_of=shown)
        raise AssertionError("a loop of two has ended")

    def about_task(self, task_id: str, verb: str, body: Json) -> Json:
        """POST /tasks/{id}/<verb>. Raises as `call`."""
        return self.call(f"/tasks/{quote(task_id, safe='')}/{verb}", body)

    def pauses(self) -> Iterator[float]:
        """How long to wait before each further try: longer and longer, and never all agents at the same moment."""
        longest = min(LONGEST_PAUSE_SECS, self.welcome.beat_secs if self.welcome else LONGEST_PAUSE_SECS)
        pause = min(FIRST_PAUSE_SECS, longest)
        while True:
            yield random.uniform(pause / 2, pause)  # noqa: S311 - spread, not secrecy
            pause = min(2 * pause, longest)

    def secrets(self) -> tuple[str | None, ...]:
        return (self._token, self._enrol_token)

    def _renew(self, instead_of: str | None) -> None:
        """Register again, unless another thread has done it meanwhile."""
        with self._lock:
            if self._token == instead_of:
                self._register()

    def _register(self) -> Welcome:
        why = "there is no token: set FLEET_ENROLL_TOKEN or FLEET_ENROLL_TOKEN_FILE"
        for token in filter(None, (self._token, self._enrol_token)):
            try:
                answer = self._post("/agents/register", self._about, token)
            except Refusal as no:
                why = str(no)
                continue
            self._token = str(answer["registry_token"])
            self._folder.keep_token(self._about["agent_id"], self._token)
            self.welcome = Welcome(float(answer["heartbeat_interval_secs"]), float(answer["offline_after_secs"]))
            log.info("registered", agent=self._about["agent_id"], beat_secs=self.welcome.beat_secs)
            return self.welcome
        raise Unwelcome(f"The fleet does not let this agent in: {why}")

    def _post(self, path: str, body: Json, token: str | None, key: str | None = None, seconds: float = SECONDS) -> Json:
        headers = {"Authorization": f"Bearer {token}"} | ({"Idempotency-Key": key} if key else {})
        named = {"agent_id": self._about["agent_id"], **body}
        try:
            answer = self._http.post(path, json=named, headers=headers, timeout=httpx.Timeout(SECONDS, read=seconds))
        except httpx.HTTPError as error:
            raise Away(f"{self._http.base_url} does not answer: {error or type(error).__name__}") from error
        return _read(answer)


def _read(answer: httpx.Response) -> Json:
    """The body of a success. What is not the fleet's own answer (a proxy's page, say) counts as none."""
    if answer.status_code == 204:
        return {}
    try:
        body = answer.json()
    except ValueError:
        body = None
    if not isinstance(body, dict) or (answer.is_error and "code" not in body) or answer.is_redirect:
        raise Away(f"{answer.url} answered {answer.status_code} and is no fleet: look at --server.")
    if body.get("code") in AWAY and answer.is_error:
        raise Away(str(body.get("error")), _seconds(answer.headers))
    if answer.is_error:
        raise Refusal(answer.status_code, body)
    return body


def _seconds(headers: Mapping[str, str]) -> float | None:
    given = headers.get("Retry-After", "")
    return float(given) if given.isdigit() else None
