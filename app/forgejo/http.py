"""The wire to one forge: four connections, its wish to be left alone heeded, answers as JSON or a sentence."""

import re
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import cache
from typing import Any

import httpx
import structlog

from app.domain.errors import Kind, Refused, Unavailable
from app.ports import Clock

TIMEOUT = httpx.Timeout(10, connect=3, pool=30)
CONNECTIONS = 4
PAGE, MOST_PAGES, FEW = 50, 40, 10
MOST = PAGE * MOST_PAGES  # entries of one list: a longer one is cut
TRY_LATER = frozenset({408, 423, 425, 429, 500, 502, 503, 504})
PATIENCE = 5  # failures in a row before the forge is given a rest
LONGEST_REST = timedelta(seconds=60)
LONGEST_WISH = 3600.0  # seconds: a forge that asks for more is asked again after so long
MOVED, MOST_HOPS = frozenset({307, 308}), 3  # what a renamed repository answers; both keep method and body

_NUMBER = re.compile(r"[0-9]{1,12}")

Json = Any
log = structlog.get_logger()


certificates = cache(httpx.create_ssl_context)  # reading those of the machine takes 30 ms


class Wire:
    """Calls raise Unavailable when the forge did not answer (or asked to be left alone), Refused when it said no."""

    def __init__(self, name: str, url: str, token: str, clock: Clock, bot_id: int | None = None) -> None:
        self.name = name
        self.url = url.rstrip("/")
        self._clock, self._bot_id = clock, bot_id
        self._failures = 0
        self._closed_until: datetime | None = None
        self._told: datetime | None = None
        self._http = httpx.Client(
            base_url=f"{self.url}/api/v1",
            verify=certificates(),
            headers={"Authorization": f"token {token}", "Accept": "application/json"},
            timeout=TIMEOUT,
            limits=httpx.Limits(max_connections=CONNECTIONS),
        )

    def moment(self, ago: timedelta = timedelta()) -> str | None:
        """How late it was by the forge's own clock when it answered last, less `ago`; None if it never said."""
        return (self._told - ago).strftime("%Y-%m-%dT%H:%M:%SZ") if self._told else None

    def get(self, path: str, **query: Any) -> Json:
        return self.send("GET", path, query=query).json()

    def whole(self, path: str, **query: Any) -> list[Json]:
        """A list that comes whole; the forge writes an empty one as `null` here and there."""
        return list(self.get(path, **query) or ())

    def find(self, path: str, **query: Any) -> Json | None:
        """None where there is no such thing."""
        answer = self.send("GET", path, ok={404}, query=query)
        return None if answer.status_code == httpx.codes.NOT_FOUND else answer.json()

    def pages(
        self, path: str, gaps: bool = False, within: str = "", ok: frozenset[int] = frozenset(), **query: Any
    ) -> list[Json]:
        """Every entry of a paginated list, bounded; it may stand `within` an object, and is empty where the answer is
        one of the refusals that are `ok`. A page may be short though more follow: the forge takes out what we
        may not see, and gives fewer than were asked for where it is set up so. Its headers say so, but for a list with
        `gaps`, which is read until hardly anything comes."""
        entries: list[Json] = []
        for page in range(1, MOST_PAGES + 1):
            answer = self.send("GET", path, ok=ok, query={"page": page, "limit": PAGE, **query})
            told = answer.json() if answer.is_success else None
            got = ((told or {}).get(within) if within else told) or ()
            entries += got
            if not _goes_on(answer, len(entries), len(got), FEW if gaps else PAGE):
                break
        else:
            log.warning("a list was cut", forge=self.name, path=path, entries=len(entries))
        return entries

    def send(
        self, method: str, path: str, body: Json = None, ok: frozenset[int] | set[int] = frozenset(), query: Any = None
    ) -> httpx.Response:
        self._wait_if_told()
        try:
            answer = self._ask(method, path, body, query)
        except httpx.HTTPError as error:
            self._failed()
            raise Unavailable(f"The forge {self.name} did not answer {method} {path}: {error!r}.") from error
        self._told = _date(answer) or self._told
        if answer.status_code in TRY_LATER and answer.status_code not in ok:
            self._failed(_retry_after(answer))
        else:
            self._failures = 0
        if answer.is_success or answer.status_code in ok:
            return answer
        raise self._no(method, path, answer)

    def _ask(self, method: str, path: str, body: Json, query: Any) -> httpx.Response:
        """A repository that was renamed or moved answers by its new address on the same forge: nowhere else does our
        token go, and no redirect is followed that would make something else of the call."""
        answer = self._http.request(method, path, json=body, params=query)
        for _ in range(MOST_HOPS):
            to = answer.headers.get("Location") if answer.status_code in MOVED else None
            where = answer.request.url.join(to or "")
            if not to or not str(where).startswith(f"{self.url}/"):
                break
            answer = self._http.request(method, where, json=body)
        return answer

    def _wait_if_told(self) -> None:
        left = (self._closed_until - self._clock()).total_seconds() if self._closed_until else 0
        if left > 0:
            raise Unavailable(f"The forge {self.name} is left alone for another {left:.0f} s, as it asked.", left)

    def _failed(self, wait: float | None = None) -> None:
        """One that names a time is believed; one that fails again and again is asked more and more rarely."""
        self._failures += 1
        rest = timedelta(seconds=wait or 0)
        if self._failures > PATIENCE:
            rest = max(rest, min(timedelta(seconds=2 ** (self._failures - PATIENCE)), LONGEST_REST))
        self._closed_until = self._clock() + rest if rest else None

    def _no(self, method: str, path: str, answer: httpx.Response) -> Refused:
        said = answer.text[:300].strip()
        sentence = f"The forge {self.name} answered {answer.status_code} to {method} {path}: {said or '(nothing)'}"
        if answer.status_code in TRY_LATER:
            return Unavailable(sentence, _retry_after(answer))
        kinds = {401: Kind.UNAUTHORIZED, 403: Kind.FORBIDDEN, 404: Kind.UNKNOWN}
        return Refused(kinds.get(answer.status_code, Kind.INVALID), sentence)


def _date(answer: httpx.Response) -> datetime | None:
    try:
        return parsedate_to_datetime(answer.headers.get("Date", "")).astimezone(UTC)
    except ValueError:
        return None


def _retry_after(answer: httpx.Response) -> float | None:
    """Seconds, or a moment, which counts from the forge's own clock; anything else says nothing."""
    given = answer.headers.get("Retry-After", "").strip()
    if _NUMBER.fullmatch(given):
        return min(float(given), LONGEST_WISH)
    try:
        until, now = parsedate_to_datetime(given), _date(answer) or datetime.now(UTC)
        return min(max((until.astimezone(UTC) - now).total_seconds(), 0.0), LONGEST_WISH)
    except ValueError:
        return None


def _goes_on(answer: httpx.Response, so_far: int, got: int, full: int) -> bool:
    """Whether another page may follow this one."""
    if "next" in answer.links:
        return True
    total = answer.headers.get("X-Total-Count", "")
    more = bool(_NUMBER.fullmatch(total)) and int(total) > so_far
    return got > 0 and (more or got >= full)
