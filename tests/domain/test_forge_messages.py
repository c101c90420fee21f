"""Texts for the forge keep the words of others inside a fence."""

import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from app.domain import forge_messages
from app.domain.lifecycle import FINAL_STATES
from app.domain.task import State
from tests.builders import a_task

modest = settings(max_examples=200, deadline=None, database=None)
ticks = st.text(alphabet="`~ \n\t\r>-ab<!\u200b\x00", max_size=40)


def blocks(markdown: str) -> list[str]:
    """The kinds of the top-level blocks of a Markdown text."""
    return [token.type for token in MarkdownIt().parse(markdown) if token.level == 0 and token.nesting >= 0]


class TestFenced:
    @given(
        st.one_of(ticks, st.text(alphabet=st.characters(exclude_categories=())), st.integers(0, 200).map("`".__mul__))
    )
    @modest
    def test_no_text_can_leave_its_block(self, text: str) -> None:
        block = forge_messages.fenced(text)
        assert blocks(block) == ["fence"]
        assert blocks(f"before\n\n{block}\n\nafter") == ["paragraph_open", "fence", "paragraph_open"]

    @given(ticks, st.integers(1, 10))
    @modest
    def test_no_text_can_leave_its_block_where_it_is_cut(self, text: str, longest: int) -> None:
        assert blocks(forge_messages.fenced(text, longest=longest)) == ["fence"]

    def test_the_end_of_a_long_text_is_kept(self) -> None:
        block = forge_messages.fenced("x" * 5000 + "the last line")
        assert "the last line" in block and len(block) < forge_messages.LONGEST + 20

    def test_html_comments_are_shown(self) -> None:
        assert "<!-- head\ngot <p>" in forge_messages.fenced("expected <!-- head\ngot <p>")

    def test_escapes_and_hidden_characters_are_removed(self) -> None:
        assert forge_messages.fenced("\x1b[31mred\u202e\x00") == "```text\n[31mred\n```"


class TestMarker:
    @given(
        st.text(alphabet=st.characters(exclude_categories=["Cs"]), min_size=1),
        st.sampled_from(["status", "receipt", "pull"]),
    )
    @modest
    def test_is_one_hidden_line_for_every_task_id(self, task_id: str, kind: str) -> None:
        mark = forge_messages.marker(a_task(task_id=task_id), kind)
        assert re.fullmatch(rf"<!-- fleet:task=[^\s<>]+ kind={kind} -->", mark)

    def test_differs_between_tasks_and_kinds(self) -> None:
        tasks = [a_task(task_id=id_) for id_ in ("a/b#1", "a/b#11", "a/b 1", "a/b+1")]
        assert len({forge_messages.marker(task, kind) for task in tasks for kind in ("status", "receipt")}) == 8


class TestLabels:
    @pytest.mark.parametrize("state", list(State))
    def test_every_state_but_cancelled_has_one_label(self, state: State) -> None:
        labels = forge_messages.labels(state)
        assert set(labels) <= set(forge_messages.OUR_LABELS.values())
        assert len(labels) == (state is not State.CANCELLED)
        assert all(labels.values())

    def test_only_completed_tasks_are_labelled_done(self) -> None:
        assert [state for state in State if "status:done" in forge_messages.labels(state)] == [State.COMPLETED]


class TestStatus:
    @pytest.mark.parametrize("state", list(State))
    def test_every_state_has_a_sentence(self, state: State) -> None:
        said = forge_messages.status(a_task(state=state, host_id="host-1", run=2, pr_number=13, reason="no_delivery"))
        assert said.startswith("**agent-fleet** · ") and said.endswith(".") and "{" not in said

    def test_a_failure_shows_its_reason_and_the_last_lines(self) -> None:
        said = forge_messages.status(a_task(state=State.FAILED, reason="validation_failed"), None, "2 failed")
        assert "Failed: validation failed." in said and "```text\n2 failed\n```" in said

    @pytest.mark.parametrize("state", sorted(set(State) - {State.FAILED, State.AGENT_LOST, State.PARKED}))
    def test_other_states_show_no_reason(self, state: State) -> None:
        assert forge_messages.why_name(a_task(state=state)) is None

    def test_braces_in_a_reason_are_not_replaced(self) -> None:
        assert "Cancelled: {run} {0}." in forge_messages.status(a_task(state=State.CANCELLED, reason="{run} {0}"))

    def test_a_lost_agent_is_named(self) -> None:
        assert "Run 3 failed: no heartbeat from `agent-1`" in forge_messages.status(
            a_task(state=State.AGENT_LOST, agent_id="agent-1", run=3)
        )


class TestReceipt:
    @pytest.mark.parametrize(
        ("merged", "said"),
        [(None, "Receipt: done"), ({}, "Receipt: done"), ({"merge_commit": "abc"}, "Receipt: merged as abc")],
    )
    def test_says_what_was_merged(self, merged: dict[str, Any] | None, said: str) -> None:
        assert said in forge_messages.receipt({"pull_request": merged})

    def test_carries_the_whole_proof(self) -> None:
        proof = {"title": "Fix `it`", "validation": [{"command": "make", "tail": "<!-- ```\n</details>"}]}
        block = next(token for token in MarkdownIt().parse(forge_messages.receipt(proof)) if token.type == "fence")
        assert json.loads(block.content) == proof


class TestPull:
    def test_closes_its_issue_and_ends_with_its_marker(self) -> None:
        task = a_task(run=2)
        body = forge_messages.pull_body(task, "I fixed it.")
        assert body.startswith("Closes #12\n") and body.endswith(forge_messages.marker(task, "pull"))
        assert "run 2" in body

    def test_without_issue_or_summary_says_how_it_was_made(self) -> None:
        assert forge_messages.pull_body(a_task(issue_number=None), None).startswith("Made by a coding agent")

    @given(ticks)
    @modest
    def test_a_summary_cannot_close_another_issue(self, summary: str) -> None:
        body = forge_messages.pull_body(a_task(), f"{summary}\n\nCloses #99")
        inline = [token.content for token in MarkdownIt().parse(body) if token.type == "inline"]
        assert not any("#99" in text for text in inline)


def test_the_commit_refers_to_its_issue_and_run() -> None:
    assert (
        forge_messages.commit_message("Fix the total", 12, "w-t1.2")
        == "Fix the total\n\nRefs #12\n\nFleet-Run: w-t1.2\n"
    )
    assert forge_messages.commit_message("Fix the total", None, "w-t1.2") == "Fix the total\n\nFleet-Run: w-t1.2\n"


def test_of_the_end_states_only_failed_is_labelled_blocked() -> None:
    assert [state for state in FINAL_STATES if "status:blocked" in forge_messages.labels(state)] == [State.FAILED]
