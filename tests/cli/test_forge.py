"""`fleet forge`: webhooks are created once, replaced when they are faulty, and tested with a delivery."""

import json
import threading
from collections.abc import Iterator
from datetime import datetime

import pytest
from werkzeug.serving import make_server

from app.forgejo import hooks
from tests.cli.conftest import Call
from tests.conftest import FakeClock
from tests.workshop import SECRET, WIDGETS, Workshop


def test_a_hook_is_created_once_and_a_faulty_one_is_replaced(workshop: Workshop, call: Call) -> None:
    owner, store = workshop.forge.add_user("alice"), workshop.forge.store
    before = len(store.hooks)

    def add(*more: str, secret: str = SECRET) -> str:
        added = call(
            "forge",
            "add",
            WIDGETS,
            "--no-test",
            *more,
            environ={"FLEET_SETUP_TOKEN": owner, "FLEET_WEBHOOK_SECRET": secret},
        )
        return added.stdout

    assert "was created" in add()
    assert "exists" in add()
    made = list(store.hooks.values())[-1]
    assert len(store.hooks) == before + 1 and made.secret == SECRET and made.wants >= hooks.NEEDED
    made.wants = {"push"}
    assert "was created" in add()
    assert len(store.hooks) == before + 1 and made.id not in store.hooks
    other = "another-secret-of-the-hook"
    assert "exists" in add(secret=other) and "was created" in add("--anew", secret=other)
    [newest] = [hook for hook in store.hooks.values() if hook.url == made.url]
    assert newest.secret == other


def test_without_an_admins_token_it_prints_what_to_enter_by_hand(workshop: Workshop, call: Call) -> None:
    added = call("forge", "add", WIDGETS)
    assert added.exit_code == 0 and "/acme/widgets/settings/hooks" in added.stdout and SECRET not in added.stdout


def test_an_organisations_hook_is_tested_by_hand(workshop: Workshop, call: Call) -> None:
    owner = workshop.forge.add_user("alice")
    assert call("forge", "add", "acme", environ={"FLEET_SETUP_TOKEN": owner}).exit_code == 0
    assert "Press 'Test delivery'" in str(call("forge", "test", "acme", environ={"FLEET_SETUP_TOKEN": owner}).exception)


@pytest.fixture
def served(workshop: Workshop) -> Iterator[str]:
    """The address of the workshop's web application, which the forge can call."""
    server = make_server("127.0.0.1", 0, workshop.client.application, threaded=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_command_waits_until_the_test_delivery_arrives(
    workshop: Workshop, call: Call, served: str, clock: FakeClock
) -> None:
    given = {"FLEET_PUBLIC_URL": served, "FLEET_SETUP_TOKEN": workshop.forge.add_user("alice")}
    added = call("forge", "add", WIDGETS, environ=given)
    assert added.exit_code == 0 and "a test delivery arrived" in added.stdout
    assert "ALLOWED_HOST_LIST" in added.stdout, "by default a forge does not call 127.0.0.1"
    clock.pass_(1)
    assert "arrived" in call("forge", "test", WIDGETS, environ=given).stdout


def test_a_test_delivery_that_does_not_arrive_in_time_is_reported(
    workshop: Workshop, call: Call, served: str, clock: FakeClock
) -> None:
    def hurrying_clock() -> datetime:
        clock.pass_(4)
        return clock()

    given = {"FLEET_PUBLIC_URL": served, "FLEET_SETUP_TOKEN": workshop.forge.add_user("alice")}
    call("forge", "add", WIDGETS, "--no-test", environ=given)
    list(workshop.forge.store.hooks.values())[-1].secret = "another"
    failed = call("forge", "test", WIDGETS, "--json", clock=hurrying_clock, environ=given)
    assert json.loads(failed.stdout)["arrived"] is False and "--anew" in str(failed.exception)
