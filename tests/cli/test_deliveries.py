"""`fleet deliveries`: webhook deliveries are listed, shown without secrets, and applied again."""

import json

from app.domain.errors import Refused
from tests.cli.conftest import Call
from tests.workshop import SECRET, Workshop, signed


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
