"""fleet.toml is read with its defaults; all that is wrong is said at once, each fault with its place."""

from pathlib import Path

import pytest

from app.config.fleet_toml import read_toml
from app.config.settings import ConfigError
from tests.config.toml import FORGE, HOST, declared, faults_of

EXAMPLE = Path(__file__).parents[1] / "fixtures" / "fleet.example.toml"


class TestFleetToml:
    def test_the_example_is_accepted(self) -> None:
        fleet = read_toml(EXAMPLE)
        assert fleet["forges"]["main"]["url"] == "https://forge.example.org"
        assert [slots["agent_type"] for slots in fleet["hosts"][0]["agents"]] == ["codex", "claude"]
        assert fleet["clis"]["mytool"]["env"] == {"MYTOOL_HOME": "{home}/.mytool"}

    def test_an_empty_one_declares_nothing(self, tmp_path: Path) -> None:
        assert declared(tmp_path, "") == {"forges": {}, "repositories": [], "hosts": [], "clis": {}, "prices": {}}

    def test_what_is_left_out_has_a_default(self, tmp_path: Path) -> None:
        fleet = declared(
            tmp_path, FORGE + '[[repositories]]\nforge = "main"\nname = "team/*"\n' + HOST + '[clis.x]\nargv = ["x"]\n'
        )
        assert fleet["forges"]["main"]["token_env"] == "FLEET_FORGE_TOKEN"
        assert (
            fleet["repositories"][0] | {"max_retries": 2, "task_timeout_secs": 3600, "validation": []}
            == fleet["repositories"][0]
        )
        assert (fleet["hosts"][0]["ssh_port"], fleet["hosts"][0]["agents"][0]["max_concurrency"]) == (22, 1)
        assert (fleet["clis"]["x"]["prompt"], fleet["clis"]["x"]["parser"]) == ("stdin", "raw")

    @pytest.mark.parametrize(
        ("toml", "place"),
        [
            ("colour = 1\n", "colour"),
            (FORGE + "colour = 1\n", "forges.main.colour"),
            (HOST + "colour = 1\n", "hosts.0.colour"),
            (HOST.replace('"codex"', '"codex", colour = 1'), "hosts.0.agents.0.colour"),
            ('[clis.x]\nargv = ["x"]\ncolour = 1\n', "clis.x.colour"),
            (FORGE + '[[repositories]]\nforge = "main"\nname = "a/b"\ncolour = 1\n', "repositories.0.colour"),
        ],
    )
    def test_an_unknown_key_is_named_with_its_place(self, tmp_path: Path, toml: str, place: str) -> None:
        assert faults_of(tmp_path, toml) == [f"{place}: Unknown field."]

    @pytest.mark.parametrize(
        ("toml", "fault"),
        [
            (FORGE.replace("https", "ftp"), "forges.main.url: must be an http or https address"),
            (FORGE.replace("forge.example.org", "[::1"), "forges.main.url: must be an http or https address"),
            (
                FORGE.replace("https://forge.example.org", "forge.example.org"),
                "forges.main.url: must be an http or https address",
            ),
            (HOST.replace('"codex"', '"codex", max_concurrency = 0'), "hosts.0.agents.0.max_concurrency: "),
            (HOST.replace('"codex"', '"codex", max_concurrency = "2"'), "hosts.0.agents.0.max_concurrency: "),
            (HOST.replace('"codex"', '"a b"'), "hosts.0.agents.0.agent_type: "),
            (HOST.replace('[{agent_type = "codex"}]', "[]"), "hosts.0.agents: "),
            (HOST.replace('"a"', '"a/../b"'), "hosts.0.host_id: "),
            ("[[hosts]]\n" + 'host_id = "a"\nagents = [{agent_type = "codex"}]\n', "hosts.0.hostname: "),
            ("hosts = 3\n", "hosts: "),
            ("forges = 3\n", "forges: "),
            ("[clis.x]\nargv = []\n", "clis.x.argv: "),
            ('[clis.x]\nargv = ["x"]\nparser = "yaml"\n', "clis.x.parser: "),
            ('[clis.x]\nargv = ["x"]\nprompt = "argv"\n', "clis.x.prompt: "),
            ('[clis.x]\nargv = ["x"]\n[clis.x.env]\nA = 1\n', "clis.x.env.A: "),
            (
                FORGE + '[[repositories]]\nforge = "main"\nname = "app"\n',
                "repositories.0.name: must look like team/app or team/*",
            ),
            (
                FORGE + '[[repositories]]\nforge = "main"\nname = "a/b"\nmax_retries = true\n',
                "repositories.0.max_retries: ",
            ),
        ],
    )
    def test_a_wrong_value_is_named_with_its_place(self, tmp_path: Path, toml: str, fault: str) -> None:
        (said,) = faults_of(tmp_path, toml)
        assert said.startswith(fault)

    def test_all_that_is_wrong_is_said_at_once(self, tmp_path: Path) -> None:
        toml = 'colour = 1\n[forges.main]\nurl = "x"\ncolour = 1\n[[hosts]]\nhost_id = "a"\nagents = []\n[clis.x]\nparser = "yaml"\n'
        places = {fault.partition(": ")[0] for fault in faults_of(tmp_path, toml)}
        assert places == {
            "colour",
            "forges.main.url",
            "forges.main.colour",
            "hosts.0.hostname",
            "hosts.0.agents",
            "clis.x.argv",
            "clis.x.parser",
        }

    def test_what_contradicts_itself_is_refused(self, tmp_path: Path) -> None:
        toml = FORGE + '[[repositories]]\nforge = "other"\nname = "team/app"\n' + HOST + HOST
        assert faults_of(tmp_path, toml) == [
            "hosts: 'a' is declared twice",
            "repositories: team/app names the forge 'other', which does not exist; known are: main",
        ]

    @pytest.mark.parametrize("content", [b"[forges", b"a = ", b"\xff\xfe", b"a = 1\na = 2\n"])
    def test_what_is_no_toml_is_refused(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "fleet.toml"
        path.write_bytes(content)
        with pytest.raises(ConfigError, match="is not TOML"):
            read_toml(path)

    def test_a_file_that_is_not_there_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"none\.toml cannot be read: No such file"):
            read_toml(tmp_path / "none.toml")
