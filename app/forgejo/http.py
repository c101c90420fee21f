"""Sends HTTP requests to one forge: connections, redirects, pages, retry times, errors as sentences."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import cache
from typing import Any

import httpx
import structlog

from app.domain.errors import Kind, Refused, Unavailable
from app.ports import Clock

TIMEOUT = httpx.Timeout(10, connect=3, pool=30)  # seconds
CONNECTIONS = 4
PAGE_SIZE, MOST_PAGES, FEW_ENTRIES = 50, 40, 10
MOST_ENTRIES = PAGE_SIZE * MOST_PAGES  # a longer list is cut
RETRYABLE = frozenset({408, 423, 425, 429, 500, 502, 503, 504})
FAILURES_BEFORE_BACKOFF = 5  # in a row
LONGEST_BACKOFF = timedelta(seconds=60)
LONGEST_RETRY_AFTER = 3600.0  # seconds: a longer Retry-After is shortened to this
REDIRECTS, MOST_REDIRECTS = frozenset({307, 308}), 3  # answers of a renamed repository; both keep method and body
_NO_STATUS: frozenset[int] = frozenset()

_NUMBER = re.compile(r"[0-9]{1,12}")
_KINDS = {401: Kind.UNAUTHORIZED, 403: Kind.FORBIDDEN, 404: Kind.UNKNOWN}

log = structlog.get_logger()


certificates = cache(httpx.create_ssl_context)  # loading the machine's certificates takes 30 ms


class HttpClient:
    """Calls one forge's API. Methods that return Any return parsed JSON, whose shape the caller knows.

    Raises Unavailable if the forge does not answer or asked for a pause, Refused if it rejects the call.
    """

    def __init__(self, name: str, url: str, token: str, clock: Clock, bot_id: int | None = None) -> None:
        self.name = name
        self.url = url.rstrip("/")
        self._clock, self._bot_id = clock, bot_id
        self._failures = 0
        self._paused_until: datetime | None = None
        self._server_time: datetime | None = None
        self._http = httpx.Client(
            base_url=f"{self.url}/api/v1",
            verify=certificates(),
            headers={"Authorization": f"token {token}", "Accept": "application/json"},
            timeout=TIMEOUT,
            limits=httpx.Limits(max_connections=CONNECTIONS),
        )

    def server_time(self, ago: timedelta = timedelta()) -> str | None:
        """The time of the forge's own clock at its last answer, minus `ago`; None before its first answer."""
        return (self._server_time - ago).strftime("%Y-%m-%dT%H:%M:%SZ") if self._server_time else None

    def get(self, path: str, **query: Any) -> Any:
        """The answer to a GET, as JSON."""
        return self.send("GET", path, query=query).json()

    def get_list(self, path: str, **query: Any) -> list[Any]:
        """A list without pages. The forge sometimes writes an empty one as `null`."""
        return list(self.get(path, **query) or ())

    def get_or_none(self, path: str, **query: Any) -> Any:
        """The answer to a GET, as JSON; None for 404."""
        answer = self.send("GET", path, ok={404}, query=query)
        return None if answer.status_code == httpx.codes.NOT_FOUND else answer.json()

    def get_pages(
        self, path: str, gaps: bool = False, within: str = "", ok: frozenset[int] = _NO_STATUS, **query: Any
    ) -> list[Any]:
        """All entries of a list with pages, at most MOST_ENTRIES.

        `within` names the field that holds the list, if the answer is an object. An error status in `ok` ends the list.
        A short page does not always end it: the forge removes entries that we may not see, and an administrator can
        lower the page size. The headers say whether more pages follow. A list with `gaps` lacks such headers; it is
        read until a page has fewer than FEW_ENTRIES.
        """
        entries: list[Any] = []
        for page in range(1, MOST_PAGES + 1):
            answer = self.send("GET", path, ok=ok, query={"page": page, "limit": PAGE_SIZE, **query})
            new = _entries_of(answer, within)
            entries += new
            if not _has_next_page(answer, len(entries), len(new), FEW_ENTRIES if gaps else PAGE_SIZE):
                break
        else:
            log.warning("a list was cut", forge=self.name, path=path, entries=len(entries))
        return entries

    def send(
        self,
        method: str,
        path: str,
        body: object = None,
        ok: frozenset[int] | set[int] = _NO_STATUS,
        query: Mapping[str, Any] | None = None,
    ) -> httpx.Response:
        """Send one request. Returns a successful answer, or one whose status is in `ok`."""
        self._check_pause()
        try:
            answer = self._follow_redirects(method, path, body, query)
        except httpx.HTTPError as error:
            self._count_failure()
            raise Unavailable(f"The forge {self.name} did not answer {method} {path}: {error!r}.") from error
        self._server_time = _date(answer) or self._server_time
        if answer.status_code in RETRYABLE and answer.status_code not in ok:
            self._count_failure(parse_retry_after(answer))
        else:
            self._failures = 0
        if answer.is_success or answer.status_code in ok:
            return answer
        raise self._error(method, path, answer)

    def _follow_redirects(
        self, method: str, path: str, body: object, query: Mapping[str, Any] | None
    ) -> httpx.Response:
        """A renamed repository redirects to its new address. Only redirects within the same forge are followed, since
        the request carries our token, and only those that keep the method."""
        answer = self._http.request(method, path, json=body, params=query)
        for _ in range(MOST_REDIRECTS):
            location = answer.headers.get("Location") if answer.status_code in REDIRECTS else None
            url = answer.request.url.join(location or "")
            if not location or not str(url).startswith(f"{self.url}/"):
                break
            answer = self._http.request(method, url, json=body)
        return answer

    def _check_pause(self) -> None:
        left = (self._paused_until - self._clock()).total_seconds() if self._paused_until else 0
        if left > 0:
            raise Unavailable(f"No request is sent to the forge {self.name} for another {left:.0f} s (back-off).", left)

    def _count_failure(self, retry_after: float | None = None) -> None:
        """Pause for `retry_after` seconds, or for longer and longer after several failures in a row."""
        self._failures += 1
        pause = timedelta(seconds=retry_after or 0)
        if self._failures > FAILURES_BEFORE_BACKOFF:
            backoff = timedelta(seconds=2 ** (self._failures - FAILURES_BEFORE_BACKOFF))
            pause = max(pause, min(backoff, LONGEST_BACKOFF))
        self._paused_until = self._clock() + pause if pause else None

    def _error(self, method: str, path: str, answer: httpx.Response) -> Refused:
        text = answer.text[:300].strip()
        sentence = f"The forge {self.name} answered {answer.status_code} to {method} {path}: {text or '(nothing)'}"
        if answer.status_code in RETRYABLE:
            return Unavailable(sentence, parse_retry_after(answer))
        return Refused(_KINDS.get(answer.status_code, Kind.INVALID), sentence)


def _entries_of(answer: httpx.Response, within: str) -> list[Any]:
    found = answer.json() if answer.is_success else None
    return list(((found or {}).get(within) if within else found) or ())


def _has_next_page(answer: httpx.Response, so_far: int, new: int, full: int) -> bool:
    if "next" in answer.links:
        return True
    total = answer.headers.get("X-Total-Count", "")
    more = bool(_NUMBER.fullmatch(total)) and int(total) > so_far
    return new > 0 and (more or new >= full)


def _date(answer: httpx.Response) -> datetime | None:
    try:
        return parsedate_to_datetime(answer.headers.get("Date", "")).astimezone(UTC)
    except ValueError:
        return None


def parse_retry_after(answer: httpx.Response) -> float | None:
    """The Retry-After header in seconds. A date in it counts from the forge's own clock. None if it is unreadable."""
    given = answer.headers.get("Retry-After", "").strip()
    if _NUMBER.fullmatch(given):
        return min(float(given), LONGEST_RETRY_AFTER)
    try:
        until, now = parsedate_to_datetime(given), _date(answer) or datetime.now(UTC)
        return min(max((until.astimezone(UTC) - now).total_seconds(), 0.0), LONGEST_RETRY_AFTER)
    except ValueError:
        return None
