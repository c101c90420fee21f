"""An order becomes the supervisor's request: a template filled in, no shell anywhere."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from app.clis import catalog, command_line, outcomes
from app.config.cli_schemas import CliSchema
from app.domain.errors import Kind, Refused
from app.domain.host import Address, Machine
from app.domain.run import Outcome, Usage, Verdict
from app.services.dispatch.git_flow import AgitPush, GitLogin, RunRepository
from app.services.dispatch.start_order import Commit, Order
from tests.builders import a_run
from workers.runs.start_request import start_request
from workers.supervisor.versions import flags_for

HOSTILE = 'it\'s "done" $(id) `id` ; {session_id} {workdir}\n\x00'
WIDGETS = RunRepository("https://forge/acme/widgets.git", base="main", branch="task/12")
MYTOOL: dict[str, Any] = {
    "argv": ["mytool", "run", "{workdir}", "-"],
    "prompt": "file",
    "resume": ["mytool", "resume", "{session_id}", "--at={workdir}"],
    "env": {"MYTOOL_HOME": "{home}/.mytool"},
    "timeout_secs": 900,
    "silence_secs": 60,
}


def an_order(**given: Any) -> Order:
    plain = Order(
        run=a_run(name="acme-widgets-12-t1.2"), host=Machine("localhost", Address("localhost")), task_name="acme-widgets-12-t1", cli="codex", template=None,
        prompt="# Fix the total\n", session=None, repository=WIDGETS,
        credentials=GitLogin("fleet", "hunter2"), validation=["make test"], timeout_secs=1800,
        delivery=Commit("Fix", "agent-fleet", "agent-fleet@localhost"),
    )  # fmt: skip
    return replace(plain, **given)


def a_spec(**given: Any) -> Any:
    return start_request(an_order(**given), log_limit_mb=64)


class TestTheRequest:
    def test_carries_the_order(self) -> None:
        spec = a_spec()
        assert (spec["run"], spec["task"]) == ("acme-widgets-12-t1.2", "acme-widgets-12-t1")
        assert spec["repository"] == {"url": "https://forge/acme/widgets.git", "base": "main", "branch": "task/12"}
        author = {"author_name": "agent-fleet", "author_email": "agent-fleet@localhost"}
        assert (spec["validation"], spec["delivery"]) == (["make test"], {"message": "Fix", **author})

    def test_says_how_to_push_with_agit_and_which_commit_was_pushed_last(self) -> None:
        first = replace(WIDGETS, agit=AgitPush("refs/for/main", ("topic=task/12", "title=Fix")))
        later = replace(WIDGETS, agit=AgitPush("refs/for/main", (), "refs/pull/7/head"), pushed="a" * 40)
        where = {
            "url": "https://forge/acme/widgets.git",
            "base": "main",
            "branch": "task/12",
            "push_to": "refs/for/main",
        }
        assert a_spec(repository=first)["repository"] == where | {"push_options": ["topic=task/12", "title=Fix"]}
        assert a_spec(repository=later)["repository"] == where | {
            "push_options": [],
            "fetch_from": "refs/pull/7/head",
            "pushed": "a" * 40,
        }

    def test_of_a_task_without_a_repository_has_nothing_to_push(self) -> None:
        spec = a_spec(repository=None, credentials=None, delivery=None)
        assert (spec["repository"], spec["credentials"], spec["delivery"]) == (None, None, None)

    def test_keeps_the_forges_password_away_from_the_agent(self) -> None:
        spec = a_spec()
        assert spec["credentials"] == {"username": "fleet", "password": "hunter2"}
        assert "hunter2" not in repr(spec | {"credentials": None})

    def test_leaves_to_the_host_what_only_the_host_knows(self) -> None:
        agent = a_spec(template=MYTOOL)["agent"]
        assert agent["argv"] == ["mytool", "run", "{workdir}", "-"]
        assert (agent["env"], agent["prompt_via"]) == ({"MYTOOL_HOME": "{home}/.mytool"}, "file")

    @pytest.mark.parametrize("template", [None, MYTOOL], ids=["preset", "declared"])
    @pytest.mark.parametrize("session", [None, "s-1"])
    def test_never_has_the_prompt_among_its_words(self, template: dict[str, Any] | None, session: str | None) -> None:
        agent = a_spec(template=template, prompt=HOSTILE, session=session)["agent"]
        assert agent["prompt"] == HOSTILE
        assert not any("done" in word for word in (*agent["argv"], *agent["env"].values()))


class TestLimits:
    @pytest.mark.parametrize(("asked", "wall"), [(1800, 900), (300, 300)])
    def test_the_shorter_time_counts(self, asked: int, wall: int) -> None:
        limits = a_spec(template=MYTOOL, timeout_secs=asked)["limits"]
        assert (limits["wall_secs"], limits["silence_secs"]) == (wall, 60)

    def test_a_template_without_limits_has_the_tasks_own(self) -> None:
        limits = a_spec(template={"argv": ["mytool"]}, timeout_secs=7200)["limits"]
        assert (limits["wall_secs"], limits["silence_secs"]) == (7200, 600)


class TestResume:
    def test_a_session_is_gone_on_with(self) -> None:
        assert a_spec(template=MYTOOL, session="s-1")["agent"]["argv"] == ["mytool", "resume", "s-1", "--at={workdir}"]

    @pytest.mark.parametrize("resume", [None, []])
    def test_a_cli_that_cannot_go_on_begins_anew(self, resume: list[str] | None) -> None:
        argv = a_spec(template=MYTOOL | {"resume": resume}, session="s-1")["agent"]["argv"]
        assert argv == MYTOOL["argv"]

    def test_a_hostile_session_is_one_word(self) -> None:
        argv = a_spec(template=MYTOOL, session="x --force; rm -rf /")["agent"]["argv"]
        assert argv[2] == "x --force; rm -rf /" and len(argv) == 4

    def test_the_preset_of_codex_resumes_with_its_sandbox(self) -> None:
        argv = a_spec(session="s-1")["agent"]["argv"]
        assert argv.index("-s") < argv.index("resume") < argv.index("s-1")


class TestWhichCli:
    def test_what_is_declared_wins_over_the_preset(self) -> None:
        assert catalog.template_of("codex", MYTOOL).argv == MYTOOL["argv"]
        assert catalog.template_of("codex", MYTOOL).parser == "raw"

    def test_a_preset_may_be_changed_and_then_by_the_repository_and_the_host(self) -> None:
        declared = {"preset": "codex", "model": "gpt-5", "env": {"CODEX_HOME": "/team-b", "A": "1"}}
        template = catalog.template_of(
            "codex-b", declared, [{"timeout_secs": 60}, {"env": {"A": "2"}, "argv": ["codex-host"]}]
        )
        assert (template.argv, template.timeout_secs, template.parser) == (["codex-host"], 60, "codex-jsonl")
        assert template.env == {"TZ": "UTC", "CODEX_HOME": "/team-b", "A": "2"}

    def test_is_kept_apart_unless_somebody_lets_it_and_checks_are_where_somebody_wishes_it(self) -> None:
        plain = command_line.fill_template(catalog.template_of("codex"), None)
        changes = {"apart": False, "checks_apart": True}
        changed = command_line.fill_template(catalog.template_of("codex", overrides=[changes]), None)
        assert [(one["apart"], one["checks_apart"]) for one in (plain, changed)] == [(True, False), (False, True)]

    @pytest.mark.parametrize("cli", ["nobody", "", "..", "../clis/codex", "codex/", "jsonpath"])
    def test_one_that_nobody_knows_is_refused_with_those_we_do(self, cli: str) -> None:
        with pytest.raises(Refused, match="codex") as refused:
            a_spec(cli=cli)
        assert refused.value.kind is Kind.UNKNOWN
        assert f"[clis.{cli}]" in str(refused.value)

    @pytest.mark.parametrize("name", catalog.presets())
    def test_every_preset_is_whole(self, name: str) -> None:
        template = catalog.template_of(name)
        assert template.parser in catalog.parsers()
        assert template.prompt in ("stdin", "file")
        assert (template.prompt == "file") == ("{prompt_file}" in template.argv)
        assert template.resume is None or "{session_id}" in template.resume
        assert set(catalog.preset(name) or ()) <= set(CliSchema().fields)

    def test_the_documentation_names_every_preset(self) -> None:
        text = " ".join((Path(__file__).parents[3] / "docs/clis.md").read_text().split())
        listed = re.findall(r"[\w-]+", text.partition("Presets: ")[2].partition(", a start for your own.")[0])
        assert sorted(set(listed) - {"and"}) == catalog.presets()

    def test_a_model_is_named_as_the_cli_wants_it(self) -> None:
        agent = a_spec(template={"preset": "claude", "model": "opus"})["agent"]
        assert {"argv": ["--model", "opus"]} in agent["flags"]


class TestFlags:
    RULES: ClassVar[list[dict[str, Any]]] = [
        {"since": "2.1.200", "argv": ["--new"]},
        {"until": "2.0", "argv": ["--old"]},
        {"argv": ["--ever"]},
    ]

    @pytest.mark.parametrize(
        ("version", "flags"),
        [
            ("2.1.330 (Claude Code)", ["--new", "--ever"]),
            ("codex-cli 2.1.200", ["--new", "--ever"]),
            ("2.1.197", ["--ever"]),
            ("1.9.9", ["--old", "--ever"]),
            ("", ["--ever"]),
            (None, ["--ever"]),
            ("10.0", ["--new", "--ever"]),
        ],
    )
    def test_follow_the_installed_version(self, version: str | None, flags: list[str]) -> None:
        assert flags_for(["x"], self.RULES, version) == ["x", *flags]

    def test_stand_where_they_are_wanted(self) -> None:
        assert flags_for(["x", "{flags}", "-"], [{"argv": ["-a", "b"]}], None) == ["x", "-a", "b", "-"]


@pytest.mark.parametrize("session", ["--dangerously-bypass", "a\0b", "\ud83d", "", {"a": 1}, ["--yolo"], "x" * 300])
def test_a_session_id_that_could_be_an_option_or_cannot_be_stored_is_dropped(session: Any) -> None:
    assert outcomes.sanitize(Outcome(Verdict.SUCCEEDED, "done", session)).session_id is None


@pytest.mark.parametrize(("printed", "kept"), [("cut \ud83d", "cut ?"), ("a\0b", "ab"), ({"a": 1}, None), (None, None)])
def test_a_final_text_is_a_text_that_can_be_stored(printed: Any, kept: str | None) -> None:
    assert outcomes.sanitize(Outcome(Verdict.SUCCEEDED, printed)).final_text == kept


@pytest.mark.parametrize("count", [float("nan"), float("inf"), "7", True, {}])
def test_usage_that_is_no_number_is_not_counted(count: Any) -> None:
    assert outcomes.sanitize(Outcome(Verdict.SUCCEEDED, usage=Usage(count, 2, 3, 0.5))).usage == Usage(None, 2, 3, 0.5)


def test_a_cli_that_cannot_go_on_with_a_session_is_told_what_was_done_before() -> None:
    given = {"template": MYTOOL | {"resume": None}, "session": "s-1", "prompt": "Go on.", "fresh_prompt": "All of it."}
    assert a_spec(**given)["agent"]["prompt"] == "All of it."
    assert a_spec(**given | {"template": MYTOOL})["agent"]["prompt"] == "Go on."
