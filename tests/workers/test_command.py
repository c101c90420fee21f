"""An order becomes the supervisor's request: a template filled in, no shell anywhere."""

import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import sqlalchemy as sa

from app.config import read
from app.domain.errors import Kind, Refused
from app.domain.masking import Mask
from app.domain.run import Outcome, Usage, Verdict
from app.ports import Fleet, Forge
from app.services.start import Order
from app.store.tables import Row
from tests.builders import AT, a_host
from workers import command

HOSTILE = 'it\'s "done" $(id) `id` ; {session_id} {workdir}\n\x00'
MYTOOL: dict[str, Any] = {
    "argv": ["mytool", "run", "{workdir}", "-"],
    "prompt": "file",
    "resume": ["mytool", "resume", "{session_id}", "--at={workdir}"],
    "env": {"MYTOOL_HOME": "{home}/.mytool"},
    "timeout_secs": 900,
    "silence_secs": 60,
}


class NoNudge:
    def soon(self) -> None: ...


def no_forge(name: str) -> Forge:
    raise AssertionError(f"nobody asks the forge {name}")


def a_fleet(**environ: str) -> Fleet:
    config = read({"FLEET_HOME": "/srv/fleet"} | environ)
    return Fleet(config, sa.create_engine(config.database_url), no_forge, NoNudge(), lambda: AT, Mask(), lambda: "f1")


def a_row(**columns: Any) -> Row:
    return cast(Row, columns)


def an_order(**given: Any) -> Order:
    plain = Order(
        run=a_row(name="acme-widgets-12-t1.2"), host=a_row(**a_host()), task_name="acme-widgets-12-t1", cli="codex", template=None,
        prompt="# Fix the total\n", session=None, repository={"url": "https://forge/acme/widgets.git", "base": "main", "branch": "task/12"},
        credentials={"username": "fleet", "password": "hunter2"}, validation=["make test"], timeout_secs=1800,
        delivery={"message": "Fix", "author_name": "agent-fleet", "author_email": "agent-fleet@localhost"},
    )  # fmt: skip
    return replace(plain, **given)


def a_spec(**given: Any) -> dict[str, Any]:
    return command.spec(a_fleet(), an_order(**given))


class TestTheRequest:
    def test_carries_the_order(self) -> None:
        spec, order = a_spec(), an_order()
        assert (spec["run"], spec["task"], spec["home"]) == (
            "acme-widgets-12-t1.2",
            "acme-widgets-12-t1",
            "/srv/fleet/work",
        )
        assert (spec["repository"], spec["validation"], spec["delivery"]) == (
            order.repository,
            ["make test"],
            order.delivery,
        )

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

    @pytest.mark.parametrize(
        ("host", "home"),
        [
            (a_host(), "/srv/fleet/work"),
            (a_host(hostname="192.0.2.10"), "~/.agent-fleet"),
            (a_host(hostname="192.0.2.10", work_dir="/srv/agents"), "/srv/agents"),
        ],
    )
    def test_names_our_folder_on_the_host(self, host: dict[str, Any], home: str) -> None:
        assert command.about(a_fleet(), a_row(**host)) == {"home": home, "instance": "f1"}


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
        assert command.template_of("codex", MYTOOL) is MYTOOL

    @pytest.mark.parametrize("cli", ["nobody", "", "..", "../clis/codex", "codex/", "raw"])
    def test_one_that_nobody_knows_is_refused_with_those_we_do(self, cli: str) -> None:
        with pytest.raises(Refused, match="codex") as refused:
            a_spec(cli=cli)
        assert refused.value.kind is Kind.UNKNOWN
        assert f"[clis.{cli}]" in str(refused.value)

    @pytest.mark.parametrize("path", sorted(command.CLIS.glob("*/cli.toml")), ids=lambda path: path.parent.name)
    def test_every_preset_has_a_parser_of_ours_and_reads_its_prompt_unseen(self, path: Path) -> None:
        preset = tomllib.loads(path.read_text())
        assert preset["parser"] in command._parsers()
        assert preset["prompt"] in ("stdin", "file")
        assert "{session_id}" in preset.get("resume", ["{session_id}"])


class TestReading:
    def test_a_preset_is_read_by_its_own_parser(self) -> None:
        assert command.parse("codex", None, b"hello", 0).verdict is Verdict.UNKNOWN

    @pytest.mark.parametrize(
        ("declared", "verdict"),
        [({"parser": "raw"}, Verdict.SUCCEEDED), ({}, Verdict.SUCCEEDED), ({"parser": "codex-jsonl"}, Verdict.UNKNOWN)],
    )
    def test_a_declared_cli_is_read_by_the_parser_it_names(self, declared: dict[str, Any], verdict: Verdict) -> None:
        assert command.parse("mytool", declared | {"argv": ["mytool"]}, b"hello", 0).verdict is verdict

    def test_one_that_is_gone_from_the_declaration_is_read_raw(self) -> None:
        assert command.parse("gone", None, b"hello", 1).final_text == "hello"


@pytest.mark.parametrize("session", ["--dangerously-bypass", "a\0b", "\ud83d", "", {"a": 1}, ["--yolo"], "x" * 300])
def test_a_session_id_that_could_be_an_option_or_cannot_be_stored_is_dropped(session: Any) -> None:
    assert command.clean(Outcome(Verdict.SUCCEEDED, "done", session)).session_id is None


@pytest.mark.parametrize(("printed", "kept"), [("cut \ud83d", "cut ?"), ("a\0b", "ab"), ({"a": 1}, None), (None, None)])
def test_a_final_text_is_a_text_that_can_be_stored(printed: Any, kept: str | None) -> None:
    assert command.clean(Outcome(Verdict.SUCCEEDED, printed)).final_text == kept


@pytest.mark.parametrize("count", [float("nan"), float("inf"), "7", True, {}])
def test_usage_that_is_no_number_is_not_counted(count: Any) -> None:
    assert command.clean(Outcome(Verdict.SUCCEEDED, usage=Usage(count, 2, 3, 0.5))).usage == Usage(None, 2, 3, 0.5)
