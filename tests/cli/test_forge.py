"""The commands that stand between an operator and a forge: inbox, hooks, doctor, prompt, receipts."""

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from click.testing import CliRunner, Result
from werkzeug.serving import make_server

from app import wiring
from app.cli import forge as forge_commands
from app.cli.__main__ import fleet as commands
from app.domain.errors import Refused
from app.forgejo import hooks
from app.forgejo.http import HttpClient
from app.services.forge import doctor
from app.store import fleet_config, tables
from tests import builders, servers
from tests.conftest import FakeClock
from tests.workshop import SECRET, WIDGETS, Workshop, signed

Call = Callable[..., Result]


@pytest.fixture
def call(workshop: Workshop, database: str, monkeypatch: pytest.MonkeyPatch) -> Call:
    """A command, on the workshop's database and forge."""
    given = servers.config(DATABASE_URL=database, REDIS_URL=servers.valkey_url(), FLEET_WEBHOOK_SECRET=SECRET)
    token = workshop.fleet.config.secret("FLEET_FORGE_TOKEN") or ""
    for name, value in {**given, "FLEET_FORGE_TOKEN": token}.items():
        monkeypatch.setenv(name, value)

    def run(*argv: str) -> Result:
        return CliRunner().invoke(commands, argv)

    return run


def test_the_inbox_is_listed_shown_and_replayed(workshop: Workshop, call: Call) -> None:
    number = workshop.open_issue()
    workshop.converge()
    listed = json.loads(call("deliveries", "list", "--json").stdout)
    assert {one["status"] for one in listed} <= {"applied", "ignored"} and listed[-1]["event"] == "issues"
    shown = json.loads(call("deliveries", "show", listed[-1]["delivery_id"], "--json").stdout)
    assert json.loads(shown["body"])["issue"]["number"] == number and shown["why"].endswith("was created")
    call("deliveries", "replay", str(listed[-1]["id"]))
    assert [one["id"] for one in json.loads(call("deliveries", "list", "--status", "waiting", "--json").stdout)] == [
        listed[-1]["id"]
    ]
    workshop.converge()
    assert len(workshop.tasks()) == 1
    assert isinstance(call("deliveries", "show", "no-such").exception, Refused)
    assert "acme" in call("deliveries", "list").stdout
    raw = f'{{"secret": "{SECRET}"}}'.encode()
    workshop.client.post("/webhooks/forgejo", data=raw, headers=signed(raw, "push", "old"))
    assert SECRET not in call("deliveries", "show", "old").stdout


def test_the_prompt_is_what_the_next_run_is_told(workshop: Workshop, call: Call) -> None:
    number = workshop.placed(body="It is off by one.")
    text = call("prompt", f"{WIDGETS}#{number}").stdout
    assert "# Fix the total" in text and "It is off by one." in text
    assert json.loads(call("prompt", f"{WIDGETS}#{number}", "--json").stdout)["hidden"] == []


def test_a_receipt_that_is_shown_can_be_verified_and_a_changed_one_not(
    workshop: Workshop, call: Call, tmp_path: Path
) -> None:
    number, pull = workshop.in_review()
    workshop.merge(pull)
    workshop.converge()
    file, key = tmp_path / "receipt.json", tmp_path / "key"
    file.write_text(call("receipt", "show", f"{WIDGETS}#{number}").stdout)
    key.write_text(call("receipt", "key").stdout)
    assert call("receipt", "verify", str(file), "--key", str(key)).exit_code == 0
    file.write_text(file.read_text().replace("acme", "acmf", 1))
    assert isinstance(call("receipt", "verify", str(file), "--key", str(key)).exception, Refused)


def test_a_hook_is_made_once_and_one_that_is_faulty_is_replaced(
    workshop: Workshop, call: Call, monkeypatch: Any
) -> None:
    owner = workshop.forge.add_user("alice")
    monkeypatch.setenv("FLEET_SETUP_TOKEN", owner)
    before = len(workshop.forge.store.hooks)

    def add(*more: str) -> Result:
        return call("forge", "add", WIDGETS, "--no-test", *more)

    assert "was made" in add().stdout
    assert "was there" in add().stdout
    made = list(workshop.forge.store.hooks.values())[-1]
    assert len(workshop.forge.store.hooks) == before + 1 and made.secret == SECRET and made.wants >= hooks.NEEDED
    made.wants = {"push"}
    assert "was made" in add().stdout
    assert len(workshop.forge.store.hooks) == before + 1 and made.id not in workshop.forge.store.hooks
    monkeypatch.setenv("FLEET_WEBHOOK_SECRET", "another-secret-of-the-hook")
    assert "was there" in add().stdout and "was made" in add("--anew").stdout
    [newest] = [hook for hook in workshop.forge.store.hooks.values() if hook.url == made.url]
    assert newest.secret == "another-secret-of-the-hook"


def test_without_a_token_that_may_it_says_what_to_enter_by_hand(workshop: Workshop, call: Call) -> None:
    said = call("forge", "add", WIDGETS)
    assert said.exit_code == 0 and "/acme/widgets/settings/hooks" in said.stdout and SECRET not in said.stdout


def wire_of(workshop: Workshop) -> Callable[[str], HttpClient]:
    token = workshop.fleet.config.secret("FLEET_FORGE_TOKEN") or ""
    return lambda name: HttpClient(name, workshop.forge.url, token, workshop.fleet.clock)


def declare(workshop: Workshop, **changes: Any) -> None:

    rule = builders.declared()["repositories"][0] | {"name": WIDGETS}
    forge = builders.declared(workshop.forge.url)["forges"]["main"] | changes
    with workshop.fleet.engine.begin() as conn:
        builders.apply(conn, forges={"main": forge}, repositories=[rule])


def admin_of(workshop: Workshop) -> Callable[[str], HttpClient]:
    token = workshop.forge.add_user("alice")
    return lambda name: HttpClient(name, workshop.forge.url, token, workshop.fleet.clock)


def wrong(workshop: Workshop) -> dict[str, str]:
    """What is wrong, as an operator sees who has an admin's token; the bot may write, no more."""
    found = doctor.examine(workshop.fleet, wire_of(workshop), admin_of(workshop))
    return {one.about: one.said for one in found if one.state == doctor.WRONG}


def test_the_doctor_finds_nothing_where_all_is_well(workshop: Workshop) -> None:
    declare(workshop)
    hook(workshop)
    workshop.placed()
    assert wrong(workshop) == {}


def hook(workshop: Workshop, where: str = WIDGETS) -> None:
    hooks.ensure_hook(admin_of(workshop)("main"), where, f"{workshop.fleet.config.public_url}{hooks.PATH}", SECRET)


def test_the_doctor_says_that_hooks_are_for_admins_to_see(workshop: Workshop) -> None:
    declare(workshop)
    found = {one.about: one for one in doctor.examine(workshop.fleet, wire_of(workshop))}
    assert "FLEET_SETUP_TOKEN" in found[f"{WIDGETS}: hook"].mend


def test_the_hook_of_an_organisation_is_as_good_as_a_repositorys(workshop: Workshop) -> None:
    declare(workshop)
    assert "there is no hook to this fleet" in wrong(workshop)[f"{WIDGETS}: hook"]
    hook(workshop, "acme")
    assert wrong(workshop) == {}


def test_a_forge_that_knows_hooks_by_its_own_name_alone_gets_one(workshop: Workshop) -> None:
    workshop.forge.faults.next("POST", r"/hooks$", 422)
    hook(workshop)
    [made] = [one for one in workshop.forge.store.hooks.values() if one.url.endswith(hooks.PATH)]
    assert (made.kind, made.active) == ("gitea", True)


def test_the_doctor_finds_each_thing_that_is_wrong(workshop: Workshop, monkeypatch: Any) -> None:
    declare(workshop, webhook_secret_env="NO_SUCH_SECRET")
    assert "every delivery is refused" in wrong(workshop)["main: webhook secret"]
    declare(workshop)
    repository = workshop.forge.repository(WIDGETS)
    repository.archived = True
    assert "archived" in wrong(workshop)[WIDGETS]
    repository.archived = False
    workshop.forge.collaborate(WIDGETS, "fleet", "read")
    assert "may not write" in wrong(workshop)[WIDGETS]
    workshop.forge.collaborate(WIDGETS, "fleet", "write")
    assert "there is no hook to this fleet" in wrong(workshop)[f"{WIDGETS}: hook"]
    url = f"{workshop.fleet.config.public_url}{hooks.PATH}"
    workshop.forge.add_hook(WIDGETS, workshop.forge.add_user("alice"), url, SECRET, events=["push"])
    assert "it does not send" in wrong(workshop)[f"{WIDGETS}: hook"]
    made = list(workshop.forge.store.hooks.values())[-1]
    made.wants, made.branch_filter = set(hooks.NEEDED), "main"
    assert wrong(workshop)[f"{WIDGETS}: hook"] == "its branch filter allows only main"
    made.active, made.content_type = False, "form"
    assert "it is not active; it sends form, not JSON" in wrong(workshop)[f"{WIDGETS}: hook"]
    made.url = f"http://another.example.org{hooks.PATH}"
    assert "FLEET_PUBLIC_URL says" in wrong(workshop)[f"{WIDGETS}: hook"]
    workshop.forge.rename(WIDGETS, "acme/gadgets")
    assert "it is called acme/gadgets now" in wrong(workshop)[WIDGETS]
    workshop.forge.stop()
    assert "did not answer" in wrong(workshop)["main: reached"]
    workshop.forge.start()


def test_the_doctor_names_the_scopes_that_a_token_lacks(workshop: Workshop) -> None:
    declare(workshop)
    hook(workshop)
    token = workshop.fleet.config.secret("FLEET_FORGE_TOKEN") or ""
    workshop.forge.limit(token, "read:user", "read:issue", "write:repository")
    assert wrong(workshop)[WIDGETS] == "the token lacks the scope write:issue"
    workshop.forge.limit(token, "write:issue", "read:repository")
    assert wrong(workshop)[WIDGETS] == "the token lacks the scope write:repository"
    assert "may not ask who it belongs to" in wrong(workshop)["main: token"]
    declare(workshop, bot_id=workshop.forge.store.users["fleet"].id)
    assert "main: token" not in wrong(workshop)
    workshop.forge.limit(token, "read:user", "write:issue", "write:repository")
    assert wrong(workshop) == {}
    del workshop.forge.store.tokens[token]
    assert "401" in wrong(workshop)["main: token"]


def test_the_doctor_sees_that_a_hook_has_another_secret(workshop: Workshop, clock: FakeClock) -> None:
    def seen() -> str:
        return " ".join(one.said for one in doctor.examine(workshop.fleet, wire_of(workshop)))

    declare(workshop)
    workshop.placed()
    raw = b'{"ref": "refs/heads/main"}'
    headers = signed(raw, "push", "d-9", "some-other-secret")
    clock.pass_(60)
    assert workshop.client.post("/webhooks/forgejo", data=raw, headers=headers).status_code == 401
    assert "a delivery with a wrong secret was refused" in seen()
    clock.pass_(3601)
    assert "a delivery with a wrong secret" in seen(), "nothing has come since"
    workshop.placed()
    assert "a delivery with a wrong secret" not in seen()


def test_the_doctor_sees_outbox_entries_that_were_refused_and_deliveries_that_are_stuck(workshop: Workshop) -> None:
    declare(workshop)
    workshop.forge.faults.next("POST", r"/comments$", 403)
    workshop.placed()
    workshop.forge.faults.next("GET", r"/issues/\d+$", 500, times=9)
    workshop.open_issue("Another")
    for _ in range(6):
        workshop.carry()
        workshop.work()
        with workshop.fleet.engine.begin() as conn:
            conn.execute(sa.update(tables.deliveries).values(due_at=workshop.fleet.clock()))
    found = {one.about: one.said for one in doctor.examine(workshop.fleet, wire_of(workshop))}
    assert "refused 1 entries for good" in found["outbox"] and "tried more than 3 times" in found["inbox"]


def test_the_doctor_sees_two_forges_with_one_secret(workshop: Workshop) -> None:
    main = builders.declared(workshop.forge.url)["forges"]["main"]
    with workshop.fleet.engine.begin() as conn:
        builders.apply(conn, forges={"main": main, "other": main})
    [found] = doctor.check_secrets(workshop.fleet, _forges(workshop))
    assert (found.about, found.said) == ("other: webhook secret", "main has the same one")


def test_an_organisations_hook_is_tested_by_hand(
    workshop: Workshop, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLEET_SETUP_TOKEN", workshop.forge.add_user("alice"))
    assert call("forge", "add", "acme").exit_code == 0
    assert "Press 'Test delivery'" in str(call("forge", "test", "acme").exception)


def test_the_doctor_sees_an_address_that_the_forge_cannot_call(workshop: Workshop) -> None:
    declare(workshop, url="https://forge.example.org")
    found = {one.about: one for one in doctor.check_ourselves(workshop.fleet, _forges(workshop))}
    assert found["FLEET_PUBLIC_URL"].state == doctor.WRONG
    assert "ALLOWED_HOST_LIST" in found


@pytest.mark.parametrize(
    ("host", "expected"),
    [("localhost", "ALLOWED_HOST_LIST"), ("10.1.2.3", "ALLOWED_HOST_LIST"), ("1.1.1.1", None),
     ("no-such-host.invalid", "FLEET_PUBLIC_URL")],
)  # fmt: skip
def test_the_doctor_asks_the_name_service_what_the_forge_will_see(host: str, expected: str | None) -> None:
    assert [one.about for one in doctor.check_callable(host)] == ([expected] if expected else [])


def _forges(workshop: Workshop) -> Any:

    with workshop.fleet.engine.begin() as conn:
        return fleet_config.all_forges(conn)


def test_the_forge_brings_a_test_delivery_that_is_waited_for(
    workshop: Workshop, call: Call, monkeypatch: pytest.MonkeyPatch, clock: FakeClock
) -> None:
    server = make_server("127.0.0.1", 0, workshop.client.application, threaded=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    monkeypatch.setenv("FLEET_PUBLIC_URL", f"http://127.0.0.1:{server.port}")
    monkeypatch.setenv("FLEET_SETUP_TOKEN", workshop.forge.add_user("alice"))
    monkeypatch.setattr(wiring, "now", workshop.fleet.clock)
    try:
        added = call("forge", "add", WIDGETS)
        assert added.exit_code == 0 and "a test delivery arrived" in added.stdout
        assert "ALLOWED_HOST_LIST" in added.stdout, "127.0.0.1 is not called by a forge that was not told so"
        clock.pass_(1)
        assert "arrived" in call("forge", "test", WIDGETS).stdout
        monkeypatch.setattr(forge_commands, "PATIENCE_SECS", 0.3)
        clock.pass_(1)
        list(workshop.forge.store.hooks.values())[-1].secret = "another"
        failed = call("forge", "test", WIDGETS, "--json")
        assert json.loads(failed.stdout)["arrived"] is False and "--anew" in str(failed.exception)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
