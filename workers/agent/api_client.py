"""Sends requests to the fleet's API. The agent's token is renewed when the fleet no longer accepts it."""

import random
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx
import structlog

from workers.agent.messages import Json
from workers.agent.state_dir import StateDir

SECONDS = 15.0
FIRST_PAUSE_SECS, LONGEST_PAUSE_SECS = 0.5, 30.0
ABOUT_AGENT = ("/agents/heartbeat", "/tasks/dequeue", "/agents/deregister")  # a 404 there: the agent is unknown
UNAVAILABLE = frozenset({"busy", "broken", "unavailable"})
log = structlog.get_logger()


class ServerUnavailable(Exception):
    """The server did not answer, or cannot now. The same request may succeed later, after `retry_after` seconds."""

    def __init__(self, why: str, retry_after: float | None = None) -> None:
        super().__init__(why)
        self.retry_after = retry_after


class RequestRefused(Exception):
    """The server refused the request; `str()` is its sentence."""

    def __init__(self, status: int, body: Json) -> None:
        super().__init__(str(body.get("error")))
        self.status, self.body = status, body


class RegistrationRefused(Exception):
    """The server accepts neither the agent's token nor the enrolment token."""


@dataclass(frozen=True)
class Registration:
    """The intervals that the server asks for, in seconds."""

    heartbeat_secs: float
    lease_secs: float

    @property
    def grace_secs(self) -> float:
        """How long a CLI may take to end when its lease ends."""
        return min(10.0, self.lease_secs / 6)


class ApiClient:
    """The API of one fleet. Several threads may use it. `about` is the body of the registration."""

    def __init__(self, address: str, state: StateDir, about: Mapping[str, object], enrol_token: str | None) -> None:
        self.registration: Registration | None = None
        self._state, self._about, self._enrol_token = state, about, enrol_token
        self._token = state.token()
        self._lock = threading.Lock()
        limits = httpx.Limits(max_connections=None)
        # Without TLS, no certificates are loaded: they take 3 MB.
        self._http = httpx.Client(base_url=f"{address}/api/v1", limits=limits, verify=address.startswith("https:"))

    def register(self) -> Registration:
        """Register with the agent's own token, else with the enrolment token.

        Raises ServerUnavailable, RegistrationRefused.
        """
        with self._lock:
            return self._register()

    def call(
        self, path: str, body: Mapping[str, object], key: str | None = None, wait: float = 0, seconds: float = SECONDS
    ) -> Json:
        """POST `body`; an empty response is {}.

        `key` is the Idempotency-Key; the server may take `wait` more seconds to answer.
        Raises ServerUnavailable, RequestRefused, RegistrationRefused.
        """
        for is_last in (False, True):
            token = self._token
            try:
                return self._post(path, body, token, key, seconds + wait)
            except RequestRefused as refusal:
                is_unknown = refusal.status == 401 or (refusal.status == 404 and path in ABOUT_AGENT)
                if is_last or not is_unknown:
                    raise
                self._renew(token)
        raise AssertionError("a loop of two has ended")

    def call_task(self, task_id: str, verb: str, body: Mapping[str, object]) -> Json:
        """POST /tasks/{id}/<verb>. Raises as `call`."""
        return self.call(f"/tasks/{quote(task_id, safe='')}/{verb}", body)

    def backoff(self) -> Iterator[float]:
        """Seconds to wait before each retry: they double up to a limit, with jitter."""
        longest = min(LONGEST_PAUSE_SECS, self.heartbeat_secs(LONGEST_PAUSE_SECS))
        pause = min(FIRST_PAUSE_SECS, longest)
        while True:
            yield random.uniform(pause / 2, pause)  # noqa: S311 - jitter, not secrecy
            pause = min(2 * pause, longest)

    def heartbeat_secs(self, default: float) -> float:
        return self.registration.heartbeat_secs if self.registration else default

    def grace_secs(self, default: float = 2.0) -> float:
        return self.registration.grace_secs if self.registration else default

    def secrets(self) -> tuple[str | None, ...]:
        return (self._token, self._enrol_token)

    def _renew(self, refused: str | None) -> None:
        """Register again, unless another thread has replaced the refused token."""
        with self._lock:
            if self._token == refused:
                self._register()

    def _register(self) -> Registration:
        why = "there is no token: set FLEET_ENROLL_TOKEN or FLEET_ENROLL_TOKEN_FILE"
        for token in filter(None, (self._token, self._enrol_token)):
            try:
                body = self._post("/agents/register", self._about, token)
            except RequestRefused as refusal:
                why = str(refusal)
                continue
            self._token = str(body["registry_token"])
            self._state.save_token(str(self._about["agent_id"]), self._token)
            self.registration = Registration(float(body["heartbeat_interval_secs"]), float(body["offline_after_secs"]))
            log.info("registered", agent=self._about["agent_id"], heartbeat_secs=self.registration.heartbeat_secs)
            return self.registration
        raise RegistrationRefused(f"The fleet does not let this agent in: {why}")

    def _post(
        self, path: str, body: Mapping[str, object], token: str | None, key: str | None = None, seconds: float = SECONDS
    ) -> Json:
        headers = {"Authorization": f"Bearer {token}"} | ({"Idempotency-Key": key} if key else {})
        named = {"agent_id": self._about["agent_id"], **body}
        try:
            response = self._http.post(path, json=named, headers=headers, timeout=httpx.Timeout(SECONDS, read=seconds))
        except httpx.HTTPError as error:
            raise ServerUnavailable(
                f"{self._http.base_url} does not answer: {error or type(error).__name__}"
            ) from error
        return _parse(response)


def _parse(response: httpx.Response) -> Json:
    """The body of a success. A response that is not the fleet's, such as a proxy's page, counts as no answer."""
    if response.status_code == 204:
        return {}
    try:
        body: Any = response.json()
    except ValueError:
        body = None
    if not isinstance(body, dict) or (response.is_error and "code" not in body) or response.is_redirect:
        raise ServerUnavailable(f"{response.url} answered {response.status_code} and is no fleet: check --server.")
    if body.get("code") in UNAVAILABLE and response.is_error:
        raise ServerUnavailable(str(body.get("error")), _retry_after(response.headers))
    if response.is_error:
        raise RequestRefused(response.status_code, body)
    return body


def _retry_after(headers: Mapping[str, str]) -> float | None:
    given = headers.get("Retry-After", "")
    return float(given) if given.isdigit() else None
