"""The wire to a forge: paced, patient, heeding its wish to be left alone."""

import pytest

from app.domain.errors import Refused, Unavailable
from app.forgejo.client import Forgejo
from tests.conftest import FakeClock
from tests.fakes.forge import FakeForge


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
