"""Builds a scene: acme/widgets on a fake forge, and a fleet that works for it. The test plays people and hosts."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import httpx
from flask.testing import FlaskClient

from app.cli.demo.forge import Delivery as SentDelivery
from app.cli.demo.forge import FakeForge
from app.domain.delivery import Delivery
from app.domain.run import Outcome, Run, Usage, Verdict
from app.domain.task import Task
from app.forgejo.signature import sign
from app.ports import Fleet
from app.services.dispatch import placement
from app.services.forge import reconcile
from app.services.forge.deliveries import apply_deliveries
from app.services.outbox import deliver
from app.services.runs import report
from app.store import deliveries, runs, tasks, views
from tests import builders
from tests.web_process import client_of

WIDGETS = "acme/widgets"
REPO = f"/repos/{WIDGETS}"
SECRET = "s3cret-of-the-hook"
NOWHERE = "http://127.0.0.1:9/hook"  # the forge keeps what it cannot send there: the test sends it
MOST_TURNS = 30


class Workshop:
    """People: alice owns, reviewer writes, mallory only reads, fleet is our bot."""

    def __init__(
        self, forge: FakeForge, make_fleet: Callable[..., Fleet], hooked: bool = True, **declared: Any
    ) -> None:
        self.forge = forge
        tokens = {login: forge.add_user(login) for login in ("alice", "reviewer", "fleet", "mallory")}
        forge.add_organisation("acme", owners=["alice"])
        forge.add_repository(WIDGETS)
        for login in ("reviewer", "fleet"):
            forge.collaborate(WIDGETS, login, "write")
        self.people = {login: forge.client(token) for login, token in tokens.items()}
        self.fleet = make_fleet(FLEET_FORGE_TOKEN=tokens["fleet"], FLEET_WEBHOOK_SECRET=SECRET)
        with self.fleet.engine.begin() as conn:
            builders.apply(conn, forge_url=forge.url, **declared)
        self.client: FlaskClient = client_of(self.fleet)
        if hooked:
            forge.add_hook(WIDGETS, tokens["alice"], NOWHERE, SECRET)
        self.carried = 0

    # --- what people do

    def say(self, method: str, path: str, by: str = "alice", **body: Any) -> Any:
        """A call of the forge's API by one of the people."""
        answer: httpx.Response = self.people[by].request(method, f"{REPO}{path}", json=body or None)
        answer.raise_for_status()
        return answer.json() if answer.content else None

    def label_id(self, name: str) -> int:
        known = next((label for label in self.forge.repository(WIDGETS).labels if label.name == name), None)
        return (known or self.forge.add_label(WIDGETS, name)).id

    def open_issue(
        self,
        title: str = "Fix the total",
        body: str = "It is off by one.",
        labels: tuple[str, ...] = ("agent:python",),
        by: str = "alice",
    ) -> int:
        ids = [self.label_id(name) for name in labels]
        return int(self.say("POST", "/issues", by, title=title, body=body, labels=ids)["number"])

    def label(self, number: int, *names: str, by: str = "alice") -> None:
        """Replace the labels of the issue."""
        ids = [self.label_id(name) for name in names]
        self.people[by].put(f"{REPO}/issues/{number}/labels", json={"labels": ids}).raise_for_status()

    def close(self, number: int) -> None:
        self.say("PATCH", f"/issues/{number}", state="closed")

    def reopen(self, number: int) -> None:
        self.say("PATCH", f"/issues/{number}", state="open")

    def push(self, number: int, content: str = "1") -> str:
        """A commit on the task's branch, as a run would push it."""
        branch = self.task(number).branch or ""
        self.people["fleet"].post(f"{REPO}/branches", json={"new_branch_name": branch})
        return self.forge.commit(WIDGETS, "fleet", branch, {"total.py": content}, f"Write {content}")

    def open_pull(self, number: int, by: str = "fleet") -> int:
        branch = self.task(number).branch
        return int(self.say("POST", "/pulls", by, head=branch, base="main", title="By hand")["number"])

    def review(self, pull: int, text: str = "Cover the empty list.") -> int:
        asked = {"event": "REQUEST_CHANGES", "body": text}
        return int(self.say("POST", f"/pulls/{pull}/reviews", "reviewer", **asked)["id"])

    def comment(self, number: int, text: str, by: str = "alice") -> int:
        return int(self.say("POST", f"/issues/{number}/comments", by, body=text)["id"])

    def edit(self, number: int, **changes: str) -> None:
        self.say("PATCH", f"/issues/{number}", **changes)

    def merge(self, pull: int) -> None:
        self.say("POST", f"/pulls/{pull}/merge", Do="merge")

    # --- the state of the forge

    def comments(self, number: int, by: str = "fleet") -> list[str]:
        said = self.people["alice"].get(f"{REPO}/issues/{number}/comments").json()
        return [one["body"] for one in said if one["user"]["login"] == by]

    def reactions(self, comment: int) -> set[str]:
        said = self.people["alice"].get(f"{REPO}/issues/comments/{comment}/reactions").json()
        return {one["content"] for one in said if one["user"]["login"] == "fleet"}

    def labels(self, number: int) -> set[str]:
        return {label["name"] for label in self.people["alice"].get(f"{REPO}/issues/{number}/labels").json()}

    def pulls(self) -> list[int]:
        return [one["number"] for one in self.people["alice"].get(f"{REPO}/pulls", params={"state": "all"}).json()]

    # --- what hosts report

    def start(self, number: int) -> Run:
        run = self.run(number)
        report.started(self.fleet, run)
        return run

    def finish(
        self, number: int, content: str | None = "1", said: str = "The total is right now.", **given: Any
    ) -> None:
        """The newest run ends well, with this content pushed (None: nothing) and this final text."""
        head = self.push(number, content) if content else None
        pushed = {"pushed": bool(head), "head": head, "commits": [head] if head else []}
        report.ended(self.fleet, self.run(number), a_result(**pushed | given), an_outcome(final_text=said))

    # --- what the fleet does

    def set_review_quiet(self, seconds: float = 10) -> None:
        """Wait so long for more of a review before its round begins."""
        self.fleet = replace(self.fleet, config=replace(self.fleet.config, review_quiet_secs=seconds))

    def carry(self) -> list[int]:
        """Send the new deliveries of the forge to the webhook; return the statuses of the answers."""
        self.forge.wait_for_deliveries()
        new = self.forge.deliveries[self.carried :]
        self.carried += len(new)
        return [self.bring(delivery) for delivery in new]

    def bring(self, delivery: SentDelivery) -> int:
        return self.client.post("/webhooks/forgejo", data=delivery.raw, headers=delivery.headers).status_code

    def converge(self) -> None:
        """Apply every delivery and deliver every outbox entry, until nothing is left to do."""
        for _ in range(MOST_TURNS):
            if not self.carry() and not self.work():
                return
        raise AssertionError("there is always something more to do")

    def converge_for_hours(self, pass_time: Callable[[float], None]) -> None:
        """Converge again and again until every back-off is over."""
        for _ in range(16):
            self.converge()
            pass_time(301)

    def work(self) -> int:
        """One round of a worker, hosts apart."""
        return apply_deliveries(self.fleet) + placement.place_waiting(self.fleet) + deliver.deliver_due(self.fleet)

    def reconcile(self) -> None:
        """Reconcile with the forge, and do all work that follows."""
        reconcile.reconcile(self.fleet)
        while self.work():
            pass

    def task(self, number: int) -> Task:
        with self.fleet.engine.begin() as conn:
            return tasks.find(conn, f"{WIDGETS}#{number}")

    def tasks(self) -> list[Task]:
        with self.fleet.engine.begin() as conn:
            return tasks.all_tasks(conn)

    def shown(self, number: int) -> dict[str, Any]:
        with self.fleet.engine.begin() as conn:
            return views.task(conn, f"{WIDGETS}#{number}") or {}

    def facts(self, number: int) -> list[str]:
        return [event["fact"] for event in self.shown(number)["events"]]

    def run(self, number: int) -> Run:
        task = self.task(number)
        with self.fleet.engine.begin() as conn:
            run = runs.get(conn, task.id, task.run)
        assert run is not None
        return run

    def inbox(self) -> list[Delivery]:
        """All deliveries that were received, oldest first."""
        with self.fleet.engine.begin() as conn:
            newest_first = deliveries.list_deliveries(conn, limit=100_000)
            found = [deliveries.find(conn, str(one.id)) for one in reversed(newest_first)]
            return [one for one in found if one]

    # --- usual scenes

    def placed(self, **given: Any) -> int:
        """An issue whose task is placed on a host."""
        number = self.open_issue(**given)
        self.converge()
        return number

    def running(self, **given: Any) -> int:
        number = self.placed(**given)
        self.start(number)
        self.converge()
        return number

    def in_review(self, **given: Any) -> tuple[int, int]:
        """An issue whose task has a pull request: the numbers of both."""
        number = self.running(**given)
        self.finish(number)
        self.converge()
        return number, self.task(number).pr_number or 0


def signed(body: bytes, event: str = "issues", delivery: str = "d-1", secret: str = SECRET) -> dict[str, str]:
    """The headers of a delivery with this body, and its signature."""
    return {
        "X-Forgejo-Event-Type": event, "X-Forgejo-Delivery": delivery, "X-Forgejo-Signature": sign(secret, body),
        "Content-Type": "application/json",
    }  # fmt: skip


def a_result(**given: Any) -> Mapping[str, Any]:
    """A supervisor's result of a successful run."""
    return {
        "end": "finished", "step": "deliver", "exit_code": 0, "pushed": False, "head": None, "commits": [], "validation": [],
        **given,
    }  # fmt: skip


def an_outcome(verdict: Verdict = Verdict.SUCCEEDED, **given: Any) -> Outcome:
    plain: dict[str, Any] = {
        "final_text": "The total is right now.",
        "session_id": "session-1",
        "usage": Usage(10, 0, 5, 0.25),
    }
    return Outcome(verdict, **plain | given)
