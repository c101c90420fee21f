"""Plays the parts of a race: agents over HTTP that die and lose answers, hosts, and the clock of the control plane."""

import http.client
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from urllib.parse import quote

from app.domain.run import Outcome, Verdict
from app.ports import Fleet
from app.services.dispatch import placement
from app.services.runs import expiry, report
from tests import builders
from tests.agent_client import ENROLL
from tests.chaos.check_history import Place
from tests.patience import patient
from tests.web_process import Web, ask

CUT = (OSError, http.client.HTTPException)
BEAT_SECS = 0.8
DONE = {"end": "finished", "step": "deliver", "exit_code": 0, "pushed": False}


class Race:
    """What all players share: whether it is over, and who was told that it had done what."""

    def __init__(self, web: Web, fleet: Fleet) -> None:
        self.web, self.fleet = web, fleet
        self.over = threading.Event()
        self.done: Counter[str] = Counter()
        self.met: Counter[str] = Counter()
        self.complaints: list[str] = []
        self._lock = threading.Lock()

    def note(self, what: str, task_id: str | None = None) -> None:
        with self._lock:
            self.met[what] += 1
            if task_id:
                self.done[task_id] += 1

    def complain(self, what: str) -> None:
        self.complaints.append(what)


class Player(threading.Thread):
    """Plays turns until the race is over; an exception is a complaint, not an end."""

    def __init__(self, race: Race, name: str, seed: int) -> None:
        super().__init__(name=name, daemon=True)
        self.race, self.chance = race, random.Random(seed)

    def run(self) -> None:
        while not self.race.over.is_set():
            try:
                self.turn()
            except CUT:
                self.race.note("cut off")
                self.cut_off()
            except Exception as error:
                self.race.complain(f"{self.name}: {error!r}")
                self.race.over.wait(0.2)

    def turn(self) -> None:
        raise NotImplementedError

    def cut_off(self) -> None:
        self.race.over.wait(0.3)


class AgentPlayer(Player):
    """An agent. It forgets, dies, leaves, gives up and loses answers, each now and then."""

    def __init__(self, race: Race, name: str, place: Place, seed: int) -> None:
        super().__init__(race, name, seed)
        self.place, self.token, self.beaten, self.keys, self.worked = place, "", 0.0, 0, 0
        self.held: dict[tuple[str, int], dict[str, Any]] = {}
        self.key: str | None = None
        self._link: http.client.HTTPConnection | None = None

    def turn(self) -> None:
        if not self.token:
            self.register()
        if time.monotonic() - self.beaten > BEAT_SECS:
            self.beat()
        if len(self.held) < self.place.slots:
            self.dequeue()
        for (task_id, lease), task in list(self.held.items()):
            if self.token:
                self.work(task_id, lease, task)

    def register(self) -> None:
        about = {"agent_type": "coder", "hostname": "h", "capabilities": sorted(self.place.capabilities)}
        status, told = self.ask(
            "/agents/register", ENROLL, **about, max_concurrency=self.place.slots, agent_id=self.name
        )
        self.expect(status, 200, 201)
        self.token = told["registry_token"]

    def beat(self) -> None:
        named = [{"task_id": task_id, "lease": lease} for task_id, lease in self.held]
        status, told = self.ask("/agents/heartbeat", tasks=named)
        if self.expect(status, 200):
            self.beaten = time.monotonic()
            for news in told["tasks"]:
                if news["stop"]:
                    self.held.pop((news["task_id"], news["lease"]), None)

    def dequeue(self) -> None:
        if self.key is None:
            self.keys += 1
            self.key = f"{self.name}-{self.keys}-{self.chance.random()}"
        if self.happens(0.03, "an answer to dequeue lost"):
            self.ask_and_hang_up("/tasks/dequeue", max_tasks=self.place.slots)
            if self.happens(0.5, "a lost answer never asked for again"):
                self.key = None
            return
        wait = 0.3 if not self.held else 0
        status, told = self.ask(
            "/tasks/dequeue", max_tasks=self.place.slots, wait_secs=wait, headers={"Idempotency-Key": self.key}
        )
        self.key = None
        if self.expect(status, 200, 204) and told:
            for task in told.get("tasks", [told]):
                if not set(task["required_capabilities"]) <= self.place.capabilities:
                    self.race.complain(f"{self.name} was given {task['task_id']}, which it cannot do")
                self.held[task["task_id"], task["lease"]] = task

    def work(self, task_id: str, lease: int, task: dict[str, Any]) -> None:
        self.worked += 1
        if self.happens(1 if self.worked == 2 and self.name.endswith("3") else 0.003, "an agent died"):
            self.held, self.token, self.key = {}, "", None
        elif self.happens(0.003, "an agent left"):
            status, _ = self.ask("/agents/deregister")
            self.expect(status, 200)
            self.held, self.token = {}, ""
        elif self.happens(0.5, "a task confirmed first") and not task.get("confirmed"):
            status, told = self.say(task_id, "status", lease, status="running")
            task["confirmed"] = status == 200
            if status != 200 or told["stop"]:
                self.held.pop((task_id, lease), None)
        elif self.happens(0.01, "an agent gave up") and not task["retry_count"]:
            self.finish(task_id, lease, "failed")
        elif self.happens(0.05, "an answer to complete lost"):
            self.ask_and_hang_up(f"/tasks/{quote(task_id, safe='')}/complete", **self.receipt(lease, "completed"))
        else:
            self.finish(task_id, lease, "completed")

    def finish(self, task_id: str, lease: int, how: str) -> None:
        status, _ = self.say(task_id, "complete", **self.receipt(lease, how))
        if (task_id, lease) in self.held:
            del self.held[task_id, lease]
            self.race.note(f"{how}: {status}", task_id if status == 200 and how == "completed" else None)

    @staticmethod
    def receipt(lease: int, how: str) -> dict[str, Any]:
        return {"lease": lease, "status": how, "summary": "Done."}

    def happens(self, share: float, what: str) -> bool:
        if self.chance.random() >= share:
            return False
        self.race.note(what)
        return True

    def expect(self, status: int, *statuses: int) -> bool:
        if status in statuses:
            return True
        if status == 401 and self.token:  # its token was rotated by an answer that was cut off
            self.token = ""
        elif status not in (429, 503):
            self.race.complain(f"{self.name} was answered {status}")
        return False

    def say(self, task_id: str, verb: str, lease: int, **body: Any) -> tuple[int, Any]:
        status, told = self.ask(f"/tasks/{quote(task_id, safe='')}/{verb}", **{"lease": lease, **body})
        self.expect(status, 200, 409)
        return status, told

    def ask(self, path: str, token: str | None = None, **body: Any) -> tuple[int, Any]:
        self._link = self._link or http.client.HTTPConnection("127.0.0.1", self.race.web.port, timeout=patient(20))
        return ask(self._link, "POST", path, token or self.token, **{"agent_id": self.name, **body})

    def ask_and_hang_up(self, path: str, **body: Any) -> None:
        """Send the request and lose the answer: the agent does not know whether the server received it."""
        self.hang_up()
        link = http.client.HTTPConnection("127.0.0.1", self.race.web.port, timeout=patient(20))
        answer = link.getresponse
        link.getresponse = self._hang_up  # type: ignore[method-assign, assignment]
        headers = {"Idempotency-Key": self.key} if self.key and path.endswith("dequeue") else {}
        with suppress(ConnectionAbortedError):
            ask(link, "POST", path, self.token, **{"agent_id": self.name, **body}, headers=headers)
        link.getresponse = answer  # type: ignore[method-assign]
        link.close()

    def _hang_up(self) -> None:
        raise ConnectionAbortedError

    def cut_off(self) -> None:
        self.hang_up()
        super().cut_off()

    def hang_up(self) -> None:
        if self._link:
            self._link.close()
        self._link = None


class Hosts(Player):
    """All hosts: the placing round, and what their runs tell. A run may fall silent for good."""

    def turn(self) -> None:
        placed = placement.place_waiting(self.race.fleet)
        with self.race.fleet.engine.begin() as conn:
            open_ = builders.open_on_hosts(conn)
        for run in open_:
            if hash((run.task_pk, run.number, "silent")) % 50 == 0:
                continue
            if run.started_at is None:
                report.started(self.race.fleet, run)
            else:
                report.ended(self.race.fleet, run, DONE, Outcome(Verdict.SUCCEEDED))
        if not placed and not open_:
            self.race.over.wait(0.05)


class Clock(Player):
    """Expires silent runs and wakes tasks, again and again."""

    def turn(self) -> None:
        expiry.expire_and_wake(self.race.fleet)
        self.race.over.wait(0.3)


class Issuer(Player):
    """Asks for the rest of the tasks while the race is on."""

    def __init__(self, race: Race, batches: list[Callable[[], None]]) -> None:
        super().__init__(race, "issuer", 0)
        self.batches = batches

    def turn(self) -> None:
        if self.batches:
            self.batches.pop()()
        self.race.over.wait(0.1 if self.batches else None)


class Killer(Player):
    """Ends the web process, twice, without a word."""

    def __init__(self, race: Race, after: tuple[float, ...]) -> None:
        super().__init__(race, "killer", 0)
        self.after = list(after)

    def turn(self) -> None:
        if not self.after or self.race.over.wait(self.after.pop(0)):
            self.race.over.wait()
            return
        self.race.note("the web process killed")
        self.race.web.kill()
        self.race.web.start()
