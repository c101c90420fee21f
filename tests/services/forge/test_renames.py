"""Repositories that are renamed, moved, deleted and recreated; forges with equal names and numbers."""

from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa

from app.cli.demo.forge import FakeForge
from app.domain.task import State
from app.forgejo.client import Forgejo
from app.forgejo.models import parse_label
from app.forgejo.signature import sign
from app.ports import Fleet
from app.services.forge import deliveries, reconcile
from app.services.outbox import deliver
from app.store import task_details, tasks
from app.store.tables import outbox
from tests import builders
from tests.conftest import FakeClock
from tests.fakes.checked_forge import checked_forge
from tests.workshop import NOWHERE, SECRET, WIDGETS, Workshop

GADGETS = "acme/gadgets"


def comments(workshop: Workshop, name: str, number: int) -> list[str]:
    said = workshop.people["alice"].get(f"/repos/{name}/issues/{number}/comments").json()
    return [one["body"] for one in said if one["user"]["login"] == "fleet"]


@pytest.mark.parametrize("found", ["by a delivery", "by reconcile", "by neither"])
def test_work_goes_on_after_a_repository_is_renamed(workshop: Workshop, found: str) -> None:
    number = workshop.running()
    workshop.forge.rename(WIDGETS, GADGETS)
    if found == "by a delivery":
        workshop.people["alice"].post(f"/repos/{GADGETS}/issues/{number}/comments", json={"body": "Hm."})
        workshop.converge()
    if found == "by reconcile":
        workshop.reconcile()
    branch = workshop.task(number).branch or ""
    workshop.people["fleet"].post(f"/repos/{GADGETS}/branches", json={"new_branch_name": branch}).raise_for_status()
    head = workshop.forge.commit(GADGETS, "fleet", branch, {"total.py": "1"}, "Write")
    workshop.finish(number, None, pushed=True, head=head, commits=[head])
    workshop.converge()
    task = workshop.task(number)
    assert (task.task_id, task.state) == (f"{WIDGETS}#{number}", State.REVIEW_PENDING)
    assert len(comments(workshop, GADGETS, number)) == 1
    with workshop.fleet.engine.begin() as conn:
        known = conn.execute(sa.text("SELECT full_name FROM repositories")).scalars().all()
    assert known == [GADGETS]


def test_an_old_delivery_does_not_bring_the_old_name_back(workshop: Workshop) -> None:
    number = workshop.placed()
    workshop.label(number, "agent:python", "bug")
    workshop.forge.wait_for_deliveries()
    workshop.forge.rename(WIDGETS, GADGETS)
    workshop.reconcile()
    workshop.converge()
    with workshop.fleet.engine.begin() as conn:
        assert conn.execute(sa.text("SELECT full_name FROM repositories")).scalars().all() == [GADGETS]


def test_a_new_repository_with_an_old_name_gets_none_of_its_tasks(workshop: Workshop) -> None:
    """The old repository's task goes on; the new one's issue with the same number is another task."""
    number = workshop.running()
    workshop.forge.rename(WIDGETS, GADGETS)
    new = workshop.forge.add_repository(WIDGETS)
    workshop.forge.collaborate(WIDGETS, "fleet", "write")
    assert workshop.open_issue("Something else") == number
    workshop.reconcile()
    both = {task.repository_id: task for task in workshop.tasks()}
    assert both[new.id].task_id == f"main:{WIDGETS}#{number}" and both[new.id].repository_id != 42
    assert both[42].state is State.RUNNING and both[new.id].live
    workshop.close(number)
    workshop.reconcile()
    both = {task.repository_id: task for task in workshop.tasks()}
    assert (both[42].state, both[new.id].state) == (State.RUNNING, State.CANCELLED)
    assert any("is working on it" in text for text in comments(workshop, GADGETS, number))


def test_nothing_is_written_for_a_deleted_repository(workshop: Workshop) -> None:
    number = workshop.running()
    del workshop.forge.store.repositories[WIDGETS]
    workshop.forge.add_repository(WIDGETS)
    workshop.forge.collaborate(WIDGETS, "fleet", "write")
    workshop.open_issue("Something else", labels=())
    workshop.reconcile()
    workshop.finish(number, None, pushed=True, head="a" * 40)
    workshop.converge()
    assert comments(workshop, WIDGETS, number) == []
    with workshop.fleet.engine.begin() as conn:
        said = conn.execute(sa.select(outbox.c.error).where(outbox.c.given_up_at.is_not(None))).scalars().all()
    assert said and all("is gone from the forge" in str(why) for why in said)


def test_a_deleted_issue_ends_its_task_and_a_hidden_repository_does_not(workshop: Workshop) -> None:
    number, other = workshop.running(), workshop.running()
    del workshop.forge.repository(WIDGETS).issues[number]
    workshop.reconcile()
    assert (workshop.task(number).state, workshop.task(number).reason) == (State.CANCELLED, "issue_closed")
    hidden = workshop.forge.store.repositories.pop(WIDGETS)
    workshop.reconcile()
    assert workshop.task(other).state is State.RUNNING
    workshop.forge.store.repositories[WIDGETS] = hidden


class Twins:
    """Two forges with equal names and numbers, and one fleet for both."""

    def __init__(self, first: Workshop, second: FakeForge) -> None:
        self.first, self.second = first, second
        token, owner = second.add_user("fleet"), second.add_user("alice")
        second.add_organisation("acme", owners=["alice"])
        second.add_repository(WIDGETS)
        second.collaborate(WIDGETS, "fleet", "write")
        self.alice = second.client(owner)
        self.label = second.add_label(WIDGETS, "agent:python").id
        second.add_hook(WIDGETS, owner, NOWHERE, SECRET)
        first.fleet.config.secrets["OTHER_TOKEN"] = token  # type: ignore[index]
        main = builders.declared(first.forge.url)["forges"]["main"]
        rule = builders.declared()["repositories"][0]
        with first.fleet.engine.begin() as conn:
            builders.apply(
                conn,
                forges={"main": main, "other": main | {"url": second.url, "token_env": "OTHER_TOKEN"}},
                repositories=[rule, rule | {"forge": "other"}],
            )

    def open_issue(self, title: str) -> int:
        order = {"title": title, "labels": [self.label]}
        return int(self.alice.post(f"/repos/{WIDGETS}/issues", json=order).raise_for_status().json()["number"])

    def converge(self) -> None:
        """Apply the deliveries of both forges, and do what follows."""
        self.first.converge()
        self.second.wait_for_deliveries()
        for delivery in self.second.deliveries:
            self.first.bring(delivery)
        self.first.converge()


@pytest.fixture
def twins(workshop: Workshop, tmp_path: Path) -> object:
    with checked_forge(tmp_path / "other") as second:
        yield Twins(workshop, second)
        assert second.violations == []


def test_two_forges_with_the_same_names_numbers_and_secret_are_told_apart(twins: Twins) -> None:
    shop = twins.first
    assert shop.open_issue("Ours") == twins.open_issue("Theirs") == 1
    twins.converge()
    found = {task.forge: task for task in shop.tasks()}
    assert {name: task.task_id for name, task in found.items()} == {
        "main": f"{WIDGETS}#1", "other": f"other:{WIDGETS}#1",
    }  # fmt: skip
    with shop.fleet.engine.begin() as conn:
        titles = {name: task_details.get(conn, task.id).title for name, task in found.items()}
        assert tasks.find(conn, f"other:{WIDGETS}#1").id == found["other"].id
    assert titles == {"main": "Ours", "other": "Theirs"}
    twins.alice.post(f"/repos/{WIDGETS}/issues/1/comments", json={"body": "/cancel"}).raise_for_status()
    twins.converge()
    states = {task.forge: task.state for task in shop.tasks()}
    assert states["other"] is State.CANCELLED and states["main"] is not State.CANCELLED


def test_a_delivery_that_fits_none_of_two_forges_with_one_secret_is_refused(twins: Twins) -> None:
    twins.open_issue("Theirs")
    twins.second.wait_for_deliveries()
    delivery = twins.second.deliveries[0]
    for raw in (delivery.raw.replace(twins.second.url.encode(), b"https://elsewhere.example"), b"[]", b"{}", b"\xff"):
        headers = delivery.headers | {"X-Forgejo-Signature": sign(SECRET, raw)}
        answer = twins.first.client.post("/webhooks/forgejo", data=raw, headers=headers)
        assert answer.status_code == 401 and "secret of its own" in answer.get_json()["error"]


def test_a_forge_that_does_not_answer_does_not_delay_another(twins: Twins, clock: FakeClock) -> None:
    twins.second.stop()
    number = twins.first.open_issue()
    for _ in range(3):
        reconcile.reconcile(twins.first.fleet)
        deliveries.apply_deliveries(twins.first.fleet)
        deliver.deliver_due(twins.first.fleet)
        clock.pass_(30)
    assert twins.first.task(number).forge == "main"


def test_two_workers_that_create_a_label_at_once_leave_one(
    workshop: Workshop, make_fleet: Callable[..., Fleet]
) -> None:
    """Both look for the label before either has created it."""
    number = workshop.open_issue()
    forge = workshop.fleet.forges("main")
    assert isinstance(forge, Forgejo)
    workshop.forge.faults.next("POST", r"/widgets/labels$", "cut-after-doing")
    with pytest.raises(Exception, match="did not answer"):
        forge.set_labels(WIDGETS, number, {"status:doing": ""}, frozenset())
    first = next(label for label in workshop.forge.repository(WIDGETS).labels if label.name == "status:doing")
    made = forge.send("POST", f"/repos/{WIDGETS}/labels", {"name": first.name, "color": "#1d76db"}).json()
    assert forge.delete_duplicate_label(WIDGETS, parse_label(made)) == first.id
    assert [label.id for label in workshop.forge.repository(WIDGETS).labels if label.name == first.name] == [first.id]
