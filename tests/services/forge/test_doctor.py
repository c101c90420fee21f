"""`fleet doctor`: each fault in the setup of a forge is found and named."""

from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa

from app.domain.repository import ForgeRecord
from app.forgejo import hooks
from app.forgejo.http import HttpClient
from app.services.forge import doctor
from app.store import fleet_config, tables
from tests import builders
from tests.conftest import FakeClock
from tests.workshop import SECRET, WIDGETS, Workshop, signed


def client_of(workshop: Workshop) -> Callable[[str], HttpClient]:
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
    """What is wrong, as an operator with an admin's token sees it; the bot may only write."""
    found = doctor.examine(workshop.fleet, client_of(workshop), admin_of(workshop))
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
    found = {one.about: one for one in doctor.examine(workshop.fleet, client_of(workshop))}
    assert "FLEET_SETUP_TOKEN" in found[f"{WIDGETS}: hook"].mend


def test_the_hook_of_an_organisation_is_as_good_as_a_repositorys(workshop: Workshop) -> None:
    declare(workshop)
    assert "there is no hook to this fleet" in wrong(workshop)[f"{WIDGETS}: hook"]
    hook(workshop, "acme")
    assert wrong(workshop) == {}


def test_a_gitea_that_refuses_the_type_forgejo_gets_a_hook_of_its_own_type(workshop: Workshop) -> None:
    workshop.forge.faults.next("POST", r"/hooks$", 422)
    hook(workshop)
    [made] = [one for one in workshop.forge.store.hooks.values() if one.url.endswith(hooks.PATH)]
    assert (made.kind, made.active) == ("gitea", True)


def test_the_doctor_finds_each_thing_that_is_wrong(workshop: Workshop) -> None:
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
        return " ".join(one.said for one in doctor.examine(workshop.fleet, client_of(workshop)))

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
    found = {one.about: one.said for one in doctor.examine(workshop.fleet, client_of(workshop))}
    assert "refused 1 entries for good" in found["outbox"] and "tried more than 3 times" in found["inbox"]


def test_the_doctor_sees_two_forges_with_one_secret(workshop: Workshop) -> None:
    main = builders.declared(workshop.forge.url)["forges"]["main"]
    with workshop.fleet.engine.begin() as conn:
        builders.apply(conn, forges={"main": main, "other": main})
    [found] = doctor.check_secrets(workshop.fleet, forges_of(workshop))
    assert (found.about, found.said) == ("other: webhook secret", "main has the same one")


def test_the_doctor_sees_an_address_that_the_forge_cannot_call(workshop: Workshop) -> None:
    declare(workshop, url="https://forge.example.org")
    found = {one.about: one for one in doctor.check_ourselves(workshop.fleet, forges_of(workshop))}
    assert found["FLEET_PUBLIC_URL"].state == doctor.WRONG
    assert "ALLOWED_HOST_LIST" in found


@pytest.mark.parametrize(
    ("host", "expected"),
    [("localhost", "ALLOWED_HOST_LIST"), ("10.1.2.3", "ALLOWED_HOST_LIST"), ("1.1.1.1", None),
     ("no-such-host.invalid", "FLEET_PUBLIC_URL")],
)  # fmt: skip
def test_the_doctor_asks_the_name_service_what_the_forge_will_see(host: str, expected: str | None) -> None:
    assert [one.about for one in doctor.check_callable(host)] == ([expected] if expected else [])


def forges_of(workshop: Workshop) -> list[ForgeRecord]:
    with workshop.fleet.engine.begin() as conn:
        return fleet_config.all_forges(conn)
