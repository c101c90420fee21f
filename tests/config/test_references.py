"""A name in fleet.toml that does not exist is refused, with the names that do."""

from pathlib import Path

import pytest

from app.clis.catalog import preset, presets
from app.config import references
from app.config.fleet_toml import FleetTomlSchema
from tests.config.toml import FORGE, HOST, declared, faults_of


class TestNamesThatLeadNowhere:
    def test_are_said_together_each_with_those_that_there_are(self, tmp_path: Path) -> None:
        toml = (
            FORGE
            + '[[repositories]]\nforge = "main"\nname = "team/app"\ncli = "codx"\nclis = { claud = { timeout_secs = 5 } }\n'
        )
        toml += HOST.replace('"codex"', '"min"') + "clis = { claud = { timeout_secs = 5 } }\n"
        toml += '[clis.mine]\npreset = "kodex"\nfailover = ["claude", "codx"]\n'
        there = "amp, claude, codex, copilot, cursor, gemini, goose"
        said = faults_of(tmp_path, toml)
        assert [fault.partition(", which does not")[0] for fault in said] == [
            "clis: 'mine' begins with the preset 'kodex'",
            "clis: 'mine' fails over to the CLI 'codx'",
            "repositories: team/app names the CLI 'codx'",
            "hosts: a has slots for the CLI 'min'",
            "repositories: team/app overrides the CLI 'claud'",
            "hosts: a overrides the CLI 'claud'",
        ]
        assert all(there in fault for fault in said) and "mine" not in said[0].partition("known are")[2]
        assert all("mine" in fault.partition("known are")[2] for fault in said[1:])

    def test_are_said_beside_all_else_that_is_wrong(self, tmp_path: Path) -> None:
        toml = (
            "colour = 1\n"
            + FORGE
            + '[[repositories]]\nforge = "main"\nname = "app"\ncli = "codx"\nhooks = { before_all = ["x"] }\n'
        )
        toml += '[[hosts]]\nhost_id = "a/b"\nagents = [{ agent_type = "a b" }, { agent_type = "min" }]\nclis = { claud = { argv = [] } }\n'
        toml += '[clis.mine]\nargv = ["x", "{workdr}"]\nparser = "yaml"\nfailover = ["nobody"]\nflags = [{ since = "new" }]\n'
        said = " | ".join(faults_of(tmp_path, toml))
        for fault in (
            "colour: Unknown", "repositories.0.name", "hooks.before_all: is not a hook", "hosts.0.host_id", "hosts.0.hostname",
            "hosts.0.agents.0.agent_type", "hosts.0.clis.claud.argv", "clis.mine.parser", "clis.mine.flags.0.argv",
            "names the CLI 'codx'", "slots for the CLI 'min'", "overrides the CLI 'claud'", "fails over to the CLI 'nobody'",
            "{workdr} in argv", "'new', which is not a version",
        ):  # fmt: skip
            assert fault in said, fault

    @pytest.mark.parametrize(
        "toml", ["clis = 3\n", "hosts = [3]\n", "repositories = [[]]\n", "[clis]\nx = 3\n", "[clis.x]\nenv = 3\nflags = 3\n",
                 '[[hosts]]\nagents = [3]\n', '[[repositories]]\nclis = 3\nhooks = 3\n'])  # fmt: skip
    def test_are_looked_for_in_whatever_is_there(self, tmp_path: Path, toml: str) -> None:
        assert faults_of(tmp_path, toml)

    def test_a_parser_and_a_moment_of_a_run_are_among_them(self, tmp_path: Path) -> None:
        toml = FORGE + '[[repositories]]\nforge = "main"\nname = "a/b"\nhooks = { before_start = ["x"] }\n'
        hook, parser = sorted(faults_of(tmp_path, toml + '[clis.x]\nargv = ["x"]\nparser = "codex"\n'), reverse=True)
        assert "hooks.before_start: is not a hook: use before_ or after_ with prepare, agent" in hook
        assert all(name in parser for name in ("codex-jsonl", "claude-result", "json-path", "raw"))

    @pytest.mark.parametrize(
        ("said", "fault"),
        [
            ('argv = ["x", "{workdr}"]', "clis: 'x' has {workdr} in argv, which is not a placeholder there; use {flags}"),
            ('argv = ["x", "--id={session_id}"]', "{session_id} in argv"),
            ('argv = ["x"]\nresume = ["x", "{session}"]', "{session} in resume"),
            ('argv = ["x", "-m", "{model}"]', "{model} in argv"),
            ('argv = ["x"]\nmodel_flag = ["-m", "{modell}"]', "{modell} in model_flag"),
            ('argv = ["x"]\nflags = [{ argv = ["{repo}"] }]', "{repo} in flags"),
            ('argv = ["x"]\nenv = { A = "{hom}/.x" }', "{hom} in env"),
            ('argv = ["x"]\nflags = [{ since = "2.0", argv = ["-y"] }]', "but no `version` command"),
            ('preset = "claude"\nflags = [{ until = "newest", argv = ["-y"] }]', "'newest', which is not a version"),
        ],
    )  # fmt: skip
    def test_what_stands_for_nothing_in_a_cli_is_one_too(self, tmp_path: Path, said: str, fault: str) -> None:
        (told,) = faults_of(tmp_path, f"[clis.x]\n{said}\n")
        assert fault in told

    def test_what_a_repository_or_a_host_changes_is_looked_at_in_the_same_way(self, tmp_path: Path) -> None:
        toml = FORGE + '[[repositories]]\nforge = "main"\nname = "team/app"\nclis = { amp = { model = "m" } }\n' + HOST
        toml += 'clis = { codex = { env = { A = "{x}" }, flags = [{ since = "new", argv = ["-y"] }] } }\n'
        model, placeholder, version = faults_of(tmp_path, toml)
        assert model == (
            "repositories: team/app: its 'amp' names the model 'm', but no `model_flag` to pass it to the CLI"
        )
        assert placeholder.startswith("hosts: a: its 'codex' has {x} in env") and "'new'" in version

    @pytest.mark.parametrize("name", presets())
    def test_no_preset_has_one(self, name: str) -> None:
        assert references.faults(FleetTomlSchema().load({"clis": {name: preset(name)}})) == []

    @pytest.mark.parametrize(
        "words", ['"{}"', '"{\\"a\\": 1}"', '"{A}"', '"${HOME}"', '"print(f\\"the {number}\\")"', '"{home}/{run}"']
    )
    def test_what_only_looks_like_a_placeholder_is_none(self, tmp_path: Path, words: str) -> None:
        assert declared(tmp_path, f'[clis.x]\nargv = ["x", {words}]\n')
