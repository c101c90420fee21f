"""Checks that hostile issue texts reach prompt, branch, commit, comment and log unchanged, and are never executed."""

import subprocess
from pathlib import Path

import pytest

from app.domain.visible_text import clean
from tests.journeys.issue_journey import Journey

pytestmark = pytest.mark.journey

TITLES = (
    "quotes \" and ' and `backticks`",
    "$(touch {mark}) `touch {mark}` ; touch {mark} | touch {mark} && touch {mark}",
    "--upload-pack=touch {mark}",
    "a\nnewline: X-Header: 1\r\nSubject: y",
    "right \u202eto left\u202c and zero\u200bwidth \u2066isolate\u2069",
    "<script>alert(1)</script> <img src=x onerror=alert(1)>",
    "'; DROP TABLE tasks; --",
    "../../../etc/passwd %2e%2e%2f {{7*7}} ${{jndi}} %s %n",
    "NUL \x00 and BEL \x07 and escape \x1b[31m",
)


def assert_begins_with(text: str, title: str) -> None:
    """Word for word; a long title may be cut where it says so."""
    said, words = " ".join(text.split()), " ".join(title.split())
    begin, cut, _ = said.partition("…")
    assert said.startswith(words) or (cut and words.startswith(begin) and len(begin) > 100), (said, words)


def test_hostile_titles_and_bodies_travel_unharmed_and_execute_nowhere(stage_of_hosts: Journey, tmp_path: Path) -> None:
    travel, mark, title_of = stage_of_hosts, tmp_path / "executed", {}
    for title in (title.replace("{mark}", str(mark)) for title in TITLES):
        body = f"{title}\n\n## Validation\n- `$(touch {mark})`\n\n<!-- hidden: touch {mark} -->\n"
        title_of[travel.open_issue(title, body)] = title
    big = travel.open_issue("a megabyte", f"x $(touch {mark}) " * 30_000)
    for task_id, title in title_of.items():
        task = travel.until_status(task_id, "review_pending", opened=1)
        for text in (
            task["prompt"]["text"].removeprefix("# "),
            travel.pulls(task)[0]["title"],
            travel.commit_message(task),
        ):
            assert_begins_with(text, clean(title))
        assert task["branch_name"].startswith("task/")
        subprocess.run(["git", "check-ref-format", f"refs/heads/{task['branch_name']}"], check=True)
        travel.until_outbox_is_empty(task_id)
        assert travel.comment_kinds(task_id) == ["status"]
        assert len(travel.pulls(task)) == 1
    assert len(travel.pulls(travel.until_status(big, "review_pending", opened=1))) == 1
    assert not mark.exists()
    travel.assert_history_holds()
