"""Requests to a forge: retry times, back-off, redirects, pages, and single calls of the client."""

import httpx
import pytest

from app.cli.demo.forge import FakeForge
from app.domain.errors import Refused, Unavailable
from app.forgejo import http
from app.forgejo.client import Forgejo
from tests.conftest import FakeClock


@pytest.fixture
def client(forge: FakeForge, clock: FakeClock) -> Forgejo:
    forge.add_repository("acme/widgets")
    return Forgejo("main", forge.url, forge.add_user("fleet"), clock)


def test_no_call_is_sent_before_the_retry_time_has_passed(client: Forgejo, forge: FakeForge, clock: FakeClock) -> None:
    forge.faults.next("GET", "/repos/acme/widgets$", 429, retry_after=30)
    with pytest.raises(Unavailable) as asked:
        client.repository("acme/widgets")
    assert asked.value.retry_after == 30
    clock.pass_(20)
    with pytest.raises(Unavailable, match="for another 10 s"):
        client.bot()
    clock.pass_(11)
    assert client.bot().login == "fleet"


def test_several_failures_in_a_row_start_a_back_off_that_one_success_ends(
    client: Forgejo, forge: FakeForge, clock: FakeClock
) -> None:
    forge.faults.next("GET", "/user$", 502, times=6)
    for _ in range(6):
        with pytest.raises(Unavailable, match="502"):
            client.bot()
    with pytest.raises(Unavailable, match="back-off"):
        client.bot()
    clock.pass_(61)
    assert client.bot().login == "fleet"
    forge.faults.next("GET", "/repos/acme/widgets$", 502)
    with pytest.raises(Unavailable):
        client.repository("acme/widgets")
    assert client.repository("acme/widgets")


def test_the_server_time_is_known_after_the_first_answer(client: Forgejo) -> None:
    assert client.server_time() is None
    client.bot()
    assert str(client.server_time()).startswith("20") and str(client.server_time()).endswith("Z")


def test_a_refusal_names_the_call_and_the_status(client: Forgejo) -> None:
    with pytest.raises(Refused, match=r"answered 404 to PATCH /repos/acme/widgets/pulls/0"):
        client.set_pull_title("acme/widgets", 0, "x")


def test_a_file_is_read_as_text_and_a_folder_is_none(client: Forgejo, forge: FakeForge) -> None:
    forge.add_repository("acme/gadgets", {"AGENTS.md": "Use täbs.\n", "docs/a.md": "a"})
    assert client.file("acme/gadgets", "main", "AGENTS.md") == "Use täbs.\n"
    assert client.file("acme/gadgets", "main", "docs") is None
    assert client.file("acme/gadgets", "main", "nothing") is None
    assert client.file("acme/gadgets", "nowhere", "AGENTS.md") is None


def test_our_own_status_does_not_count_as_a_check(client: Forgejo, forge: FakeForge) -> None:
    forge.collaborate("acme/widgets", "fleet", "write")
    sha = client.branch_head("acme/widgets", "main") or ""
    client.set_commit_status("acme/widgets", sha, "failure", "https://fleet.example.org", "Failed.")
    client.set_commit_status("acme/widgets", sha, "failure", "https://fleet.example.org", "Failed.")
    assert client.check_state("acme/widgets", sha) == ""
    assert len(forge.repository("acme/widgets").statuses[sha]) == 1
    forge.run_ci("acme/widgets", sha, "success")
    assert client.check_state("acme/widgets", sha) == "success"


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
def test_every_retry_after_header_gives_a_reasonable_time(said: str, waits: float | None) -> None:
    headers = {b"Retry-After": said.encode("latin-1"), b"Date": b"Wed, 25 Nov 2026 03:00:00 GMT"}
    assert http.parse_retry_after(httpx.Response(429, headers=headers)) == waits


def test_a_list_is_read_to_its_end_although_pages_are_short(client: Forgejo, forge: FakeForge) -> None:
    """An administrator may set MAX_RESPONSE_ITEMS, hidden entries are missing, and an empty page is null."""
    forge.collaborate("acme/widgets", "fleet", "write")
    forge.add_organisation("hidden", [])
    forge.store.largest_page = 20
    for number in range(45):
        forge.add_label("acme/widgets", f"label-{number:02}")
    assert len(client.get_pages("/repos/acme/widgets/labels")) == 45
    issue = client.send("POST", "/repos/acme/widgets/issues", {"title": "Many"}).json()["number"]
    assert client.who_labelled("acme/widgets", issue, "agent:") is None
    first = forge.add_label("acme/widgets", "agent:python").id
    for _ in range(21):
        for labels in ([first], []):
            client.send("PUT", f"/repos/acme/widgets/issues/{issue}/labels", {"labels": labels})
    asker = client.who_labelled("acme/widgets", issue, "agent:")
    newest = [line for line in forge.repository("acme/widgets").issues[issue].timeline if line.body == "1"][-1]
    assert asker and asker.entry == newest.id


def test_the_redirect_of_a_renamed_repository_is_followed_and_no_other(client: Forgejo, forge: FakeForge) -> None:
    forge.collaborate("acme/widgets", "fleet", "write")
    forge.rename("acme/widgets", "acme/gadgets")
    found = client.repository("acme/widgets")
    assert found and found.full_name == "acme/gadgets" and client.repository_by_id(found.id) == found
    made = client.send("POST", "/repos/acme/widgets/issues", {"title": "Here"}).json()
    assert made["html_url"].endswith("/acme/gadgets/issues/1") and len(forge.repository("acme/gadgets").issues) == 1
    forge.faults.next("GET", "/user$", 307)
    with pytest.raises(Refused, match="answered 307"):
        client.bot()


def test_a_commit_is_contained_only_in_later_commits(client: Forgejo, forge: FakeForge) -> None:
    forge.collaborate("acme/widgets", "fleet", "write")
    first = forge.commit("acme/widgets", "fleet", "main", {"a": "1"}, "One")
    second = forge.commit("acme/widgets", "fleet", "main", {"a": "2"}, "Two")
    assert client.contains("acme/widgets", second, first) and client.contains("acme/widgets", first, first)
    assert not client.contains("acme/widgets", first, second) and not client.contains("acme/widgets", second, "f" * 40)


def test_checks_after_the_first_page_count(client: Forgejo, forge: FakeForge) -> None:
    head = forge.commit("acme/widgets", "fleet", "main", {"a": "1"}, "Write")
    owner = forge.client(forge.add_user("owner", is_admin=True))
    for number in range(60):
        state = "failure" if number == 59 else "success"
        body = {"state": state, "context": f"check {number}"}
        owner.post(f"/repos/acme/widgets/statuses/{head}", json=body).raise_for_status()
    assert client.check_state("acme/widgets", head) == "failure"
    assert client.check_state("acme/widgets", "0" * 40) == ""


def test_a_rejected_reviewer_does_not_stop_the_others(client: Forgejo, forge: FakeForge) -> None:
    owner = forge.client(forge.add_user("owner", is_admin=True))
    forge.add_user("reviewer")
    forge.collaborate("acme/widgets", "fleet", "write")
    forge.collaborate("acme/widgets", "reviewer", "write")
    forge.commit("acme/widgets", "fleet", "task/1", {"a": "1"}, "Write")
    number = client.create_pull("acme/widgets", "task/1", "main", "Write", "").number
    with pytest.raises(Refused, match="does not accept nobody as reviewers"):
        client.request_reviews("acme/widgets", number, ["nobody", "reviewer"])
    asked = owner.get(f"/repos/acme/widgets/pulls/{number}").json()["requested_reviewers"]
    assert [one["login"] for one in asked] == ["reviewer"]
