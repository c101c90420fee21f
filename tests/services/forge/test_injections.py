"""Hostile texts: none has an effect outside the prompt, and none leaves its fence."""

import json
import re
from pathlib import Path

import pytest

from app.domain import comment_command, forge_messages, prompt
from app.domain.task import State
from app.domain.visible_text import clean
from app.services.dispatch import start_order
from app.services.replay import differences
from app.store import outbox
from tests.builders import a_task
from tests.workshop import Workshop

CORPUS: list[dict[str, str]] = json.loads((Path(__file__).parents[2] / "fixtures" / "injections.json").read_text())
TEXTS = pytest.mark.parametrize("text", [one["text"] for one in CORPUS], ids=[one["name"] for one in CORPUS])
SECRETS = ("FLEET_FORGE_TOKEN", "FLEET_WEBHOOK_SECRET")


@TEXTS
def test_a_text_stays_inside_its_fence(text: str) -> None:
    read = prompt.read_issue(text, text, ["make test"], "Use tabs.", ["secrets/"])
    [mark] = re.findall(r"^----- issue ([0-9a-f]{16}) -----$", read.text, re.MULTILINE)[:1]
    before, inside, after = re.split(rf"^----- (?:end of )?issue {mark} -----$", read.text, flags=re.MULTILINE)
    assert after.startswith("\n\n## Commands that will be run on your work\n\n- `make test` passes\n")
    assert before.count("\n#") == 0, "the title is one line"
    assert all(c in "\n\t" or c.isprintable() for c in read.text)
    assert clean(text).strip()[:20] in inside or not clean(text).strip()


@TEXTS
def test_a_review_stays_inside_its_fence(text: str) -> None:
    read = prompt.read_review("Fix", text, [(text, 1, text)], [text], [{"text": text, "comments": [], "answer": text}])
    mark = re.search(r"^----- review ([0-9a-f]{16}) -----$", read, re.MULTILINE)
    assert mark and read.count(f"----- end of review {mark[1]} -----") == 1
    assert "\nMake the changes in the working tree and commit nothing else.\n" in read.rpartition("----- end of ")[2]


@TEXTS
def test_our_messages_with_it_close_link_and_mention_nothing(text: str) -> None:
    task = a_task(state=State.FAILED, reason=text)
    said = [
        forge_messages.status(task, forge_messages.PullNews([text], "", None, False), text, [text]),
        forge_messages.pull_body(task, text),
        forge_messages.answer(task.run, text),
    ]
    for words in said:
        outside = re.sub(r"^(`{3,})\w*\n.*?\n\1$", "", words, flags=re.DOTALL | re.MULTILINE)
        assert not re.search(r"@\w|<script|<img|\]\(|closes #(?!12\b)", outside, re.IGNORECASE)
        assert outside.count("<!--") == words.count(forge_messages.marker(task, "pull"))
        assert comment_command.parse_command(outside) is None


def test_none_of_them_changes_a_running_task(workshop: Workshop) -> None:
    number, pull = workshop.in_review()
    before, facts = workshop.task(number), workshop.facts(number)
    for one in CORPUS:
        workshop.comment(number, one["text"], by="mallory")
        body = {"event": "REQUEST_CHANGES", "body": one["text"]}
        workshop.say("POST", f"/pulls/{pull}/reviews", "mallory", **body)
    workshop.edit(number, body="\n\n".join(one["text"].replace("\x00", "") for one in CORPUS))
    workshop.converge()
    workshop.reconcile()
    after = workshop.task(number)
    assert (after.state, after.run, after.reason) == (before.state, before.run, before.reason)
    assert workshop.facts(number) == [*facts, "issue_edited"]
    kinds = [re.search(r"kind=(\S+) -->$", text) for text in workshop.comments(number)]
    assert sorted(kind[1] for kind in kinds if kind) == ["edited", "status"]
    assert len(workshop.tasks()) == 1 and differences(workshop.fleet) == (1, [])


def test_as_an_issue_each_reaches_only_the_prompt(workshop: Workshop) -> None:
    """It reaches neither the command line nor the credentials, the branch or the commands that are run."""
    number = workshop.placed(
        title=CORPUS[0]["text"], body="\n\n".join(one["text"].replace("\x00", "") for one in CORPUS)
    )
    with workshop.fleet.engine.begin() as conn:
        [entry] = [one for one in outbox.of_task(conn, workshop.task(number).id) if one.kind == "start"]
    order = start_order.order(workshop.fleet, entry)
    assert order is not None and order.validation == [] and order.delivery is not None
    assert re.fullmatch(rf"task/{number}[a-z0-9-]*", order.repository.branch if order.repository else "")
    secrets = [workshop.fleet.config.secret(name) or "" for name in SECRETS]
    assert "evil.example" in order.prompt and all(secret and secret not in order.prompt for secret in secrets)
    assert order.delivery.message.count("\n\n") >= 1 and "\x00" not in order.delivery.message
