"""The wire to a forge: paced, patient, heeding its wish to be left alone."""

import httpx
import pytest

from app.cli.demo.forge import FakeForge, api
from app.domain.errors import Refused, Unavailable
from app.forgejo import http as wires
from app.forgejo.client import Forgejo
from tests.conftest import FakeClock


@pytest.fixture
def wire(forge: FakeForge, clock: FakeClock) -> Forgejo:
    forge.add_repository("acme/widgets")
    return Forgejo("main", forge.url, forge.add_user("fleet"), clock)


def test_who_asks_to_be_left_alone_is_left_alone_by_every_call(
    wire: Forgejo, forge: FakeForge, clock: FakeClock
) -> None:
    forge.faults.next("GET", "/repos/acme/widgets$", 429, retry_after=30)
    with pytest.raises(Unavailable) as asked:
        wire.repository("acme/widgets")
    assert asked.value.retry_after == 30
    clock.pass_(20)
    with pytest.raises(Unavailable, match="left alone for another 10 s"):
        wire.bot()
    clock.pass_(11)
    assert wire.bot().login == "fleet"


def test_one_that_fails_again_and_again_is_asked_more_rarely_and_then_as_before(
    wire: Forgejo, forge: FakeForge, clock: FakeClock
) -> None:
    forge.faults.next("GET", "/user$", 502, times=6)
    for _ in range(6):
        with pytest.raises(Unavailable, match="502"):
            wire.bot()
    with pytest.raises(Unavailable, match="left alone"):
        wire.bot()
    clock.pass_(61)
    assert wire.bot().login == "fleet"
    forge.faults.next("GET", "/repos/acme/widgets$", 502)
    with pytest.raises(Unavailable):
        wire.repository("acme/widgets")
    assert wire.repository("acme/widgets")


def test_it_tells_how_late_it_is_at_the_forge(wire: Forgejo) -> None:
    assert wire.moment() is None
    wire.bot()
    assert str(wire.moment()).startswith("20") and str(wire.moment()).endswith("Z")


def test_a_no_is_a_sentence_with_the_call_and_the_status(wire: Forgejo) -> None:
    with pytest.raises(Refused, match=r"answered 404 to PATCH /repos/acme/widgets/pulls/0"):
        wire.retitle("acme/widgets", 0, "x")


def test_a_file_is_its_text_and_a_folder_is_none(wire: Forgejo, forge: FakeForge) -> None:
    forge.add_repository("acme/gadgets", {"AGENTS.md": "Use täbs.\n", "docs/a.md": "a"})
    assert wire.file("acme/gadgets", "main", "AGENTS.md") == "Use täbs.\n"
    assert wire.file("acme/gadgets", "main", "docs") is None
    assert wire.file("acme/gadgets", "main", "nothing") is None
    assert wire.file("acme/gadgets", "nowhere", "AGENTS.md") is None


def test_our_own_status_is_no_check(wire: Forgejo, forge: FakeForge) -> None:
    forge.collaborate("acme/widgets", "fleet", "write")
    sha = wire.branch_head("acme/widgets", "main") or ""
    wire.set_status("acme/widgets", sha, "failure", "https://fleet.example.org", "Failed.")
    wire.set_status("acme/widgets", sha, "failure", "https://fleet.example.org", "Failed.")
    assert wire.ci("acme/widgets", sha) == ""
    assert len(forge.repository("acme/widgets").statuses[sha]) == 1
    forge.run_ci("acme/widgets", sha, "success")
    assert wire.ci("acme/widgets", sha) == "success"


@pytest.mark.parametrize(
    ("said", "waits"),
    [
        ("30", 30),
        ("99999999", 3600),
        ("Wed, 25 Nov 2026 03:02:00 GMT", 120),
        ("Wed, 25 Nov 2020 03:02:00 GMT", 0),
        ("9" * 400, None),
        ("²", None),
        ("-5", None),
        ("soon", None),
    ],
)
def test_however_it_is_put_when_to_come_again_is_a_time_in_reason(said: str, waits: float | None) -> None:
    headers = {b"Retry-After": said.encode("latin-1"), b"Date": b"Wed, 25 Nov 2026 03:00:00 GMT"}
    assert wires._retry_after(httpx.Response(429, headers=headers)) == waits


def test_a_list_is_read_to_its_end_though_the_forge_gives_less_than_was_asked_for(
    wire: Forgejo, forge: FakeForge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An admin may have set MAX_RESPONSE_ITEMS; what we may not see is missing from the pages; an empty one is null."""
    forge.collaborate("acme/widgets", "fleet", "write")
    forge.add_organisation("hidden", [])
    monkeypatch.setattr(api, "LARGEST_PAGE", 20)
    for number in range(45):
        forge.add_label("acme/widgets", f"label-{number:02}")
    assert len(wire.pages("/repos/acme/widgets/labels")) == 45
    issue = wire.send("POST", "/repos/acme/widgets/issues", {"title": "Many"}).json()["number"]
    assert wire.who_labelled("acme/widgets", issue, "agent:") is None
    first = forge.add_label("acme/widgets", "agent:python").id
    for _ in range(21):
        for labels in ([first], []):
            wire.send("PUT", f"/repos/acme/widgets/issues/{issue}/labels", {"labels": labels})
    asker = wire.who_labelled("acme/widgets", issue, "agent:")
    newest = [line for line in forge.repository("acme/widgets").issues[issue].timeline if line.body == "1"][-1]
    assert asker and asker.entry == newest.id


def test_a_new_name_is_followed_for_every_kind_of_call_and_nowhere_else(wire: Forgejo, forge: FakeForge) -> None:
    forge.collaborate("acme/widgets", "fleet", "write")
    forge.rename("acme/widgets", "acme/gadgets")
    found = wire.repository("acme/widgets")
    assert found and found.full_name == "acme/gadgets" and wire.repository_by_id(found.id) == found
    made = wire.send("POST", "/repos/acme/widgets/issues", {"title": "Here"}).json()
    assert made["html_url"].endswith("/acme/gadgets/issues/1") and len(forge.repository("acme/gadgets").issues) == 1
    forge.faults.next("GET", "/user$", 307)
    with pytest.raises(Refused, match="answered 307"):
        wire.bot()


def test_a_commit_is_in_what_comes_after_it_and_in_nothing_else(wire: Forgejo, forge: FakeForge) -> None:
    forge.collaborate("acme/widgets", "fleet", "write")
    first = forge.commit("acme/widgets", "fleet", "main", {"a": "1"}, "One")
    second = forge.commit("acme/widgets", "fleet", "main", {"a": "2"}, "Two")
    assert wire.contains("acme/widgets", second, first) and wire.contains("acme/widgets", first, first)
    assert not wire.contains("acme/widgets", first, second) and not wire.contains("acme/widgets", second, "f" * 40)


def test_the_checks_beyond_the_first_page_count(wire: Forgejo, forge: FakeForge) -> None:
    head = forge.commit("acme/widgets", "fleet", "main", {"a": "1"}, "Write")
    client = forge.client(forge.add_user("owner", is_admin=True))
    for number in range(60):
        state = "failure" if number == 59 else "success"
        body = {"state": state, "context": f"check {number}"}
        client.post(f"/repos/acme/widgets/statuses/{head}", json=body).raise_for_status()
    assert wire.ci("acme/widgets", head) == "failure"
    assert wire.ci("acme/widgets", "0" * 40) == ""


def test_one_who_may_review_nothing_keeps_no_other_from_it(wire: Forgejo, forge: FakeForge) -> None:
    owner = forge.client(forge.add_user("owner", is_admin=True))
    forge.add_user("reviewer")
    forge.collaborate("acme/widgets", "fleet", "write")
    forge.collaborate("acme/widgets", "reviewer", "write")
    forge.commit("acme/widgets", "fleet", "task/1", {"a": "1"}, "Write")
    number = wire.open_pull("acme/widgets", "task/1", "main", "Write", "").number
    with pytest.raises(Refused, match="lets nobody review nothing"):
        wire.ask_review("acme/widgets", number, ["nobody", "reviewer"])
    asked = owner.get(f"/repos/acme/widgets/pulls/{number}").json()["requested_reviewers"]
    assert [one["login"] for one in asked] == ["reviewer"]
