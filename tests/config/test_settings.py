"""Every setting, read once at the door; all that is wrong is said at once."""

from pathlib import Path
from typing import Any

import pytest

from app.cli.config import _without_password
from app.clis.catalog import preset, presets
from app.config import references
from app.config.fleet_toml import FleetTomlSchema, read_toml
from app.config.settings import SECRETS, Config, ConfigError, default_home, read, secret_path

EXAMPLE = Path(__file__).parents[1] / "fixtures" / "fleet.example.toml"
DATABASE = "postgresql://fleet:hunter2-database@db/fleet"
REDIS = "redis://:hunter2-redis@cache/0"


def given(home: Path, **environ: str) -> dict[str, str]:
    return {"HOME": str(home), "FLEET_HOME": str(home), "DATABASE_URL": DATABASE, "REDIS_URL": REDIS} | environ


def config(home: Path, **environ: str) -> Config:
    return read(given(home, **environ))


def faults(home: Path, **environ: str) -> list[str]:
    with pytest.raises(ConfigError) as wrong:
        config(home, **environ)
    return wrong.value.faults


class TestEnvironment:
    def test_nothing_given_is_enough(self) -> None:
        ready = read({"FLEET_HOME": "/srv/fleet"})
        assert ready.embedded_database and ready.embedded_broker
        assert (ready.port, ready.public_url) == (9090, "http://127.0.0.1:9090")
        assert ready.database_url == "postgresql+psycopg://fleet@/fleet?host=/srv/fleet/run"
        assert ready.redis_url == "redis+socket:///srv/fleet/run/valkey.sock"

    @pytest.mark.parametrize("missing", ["DATABASE_URL", "REDIS_URL"])
    def test_one_server_of_ones_own_leaves_the_other_embedded(self, missing: str) -> None:
        ready = read({"FLEET_HOME": "/srv/fleet", "DATABASE_URL": DATABASE, "REDIS_URL": REDIS} | {missing: ""})
        assert (ready.embedded_database, ready.embedded_broker) == (missing == "DATABASE_URL", missing == "REDIS_URL")

    @pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
    def test_any_name_of_postgres_will_do(self, tmp_path: Path, scheme: str) -> None:
        ready = config(tmp_path, DATABASE_URL=f"{scheme}://fleet@db/fleet")
        assert ready.database_url == "postgresql+psycopg://fleet@db/fleet" and not ready.embedded_database

    def test_the_public_address_ends_without_a_slash(self, tmp_path: Path) -> None:
        assert config(tmp_path, FLEET_PUBLIC_URL="https://fleet.example.org/").public_url == "https://fleet.example.org"

    @pytest.mark.parametrize("value", ["", "8080", " 8080 "])
    def test_a_number_is_read_as_people_write_it(self, tmp_path: Path, value: str) -> None:
        assert config(tmp_path, PORT=value).port == (8080 if value else 9090)

    @pytest.mark.parametrize("value", ["eighty", "-1", "65536", "8080.5", "nan"])
    def test_a_number_out_of_its_range_is_refused_with_the_range(self, tmp_path: Path, value: str) -> None:
        assert faults(tmp_path, PORT=value) == [f"PORT={value!r} must be a number from 0 to 65535."]

    @pytest.mark.parametrize("value", ["nan", "inf", "0", "1e9"])
    def test_seconds_are_a_real_number(self, tmp_path: Path, value: str) -> None:
        assert "FLEET_SCAN_SECS" in faults(tmp_path, FLEET_SCAN_SECS=value)[0]

    def test_all_that_is_wrong_is_said_at_once(self, tmp_path: Path) -> None:
        said = faults(
            tmp_path,
            PORT="x",
            FLEET_SCAN_SECS="0",
            FLEET_WORKER_THREADS="65",
            DATABASE_URL="mysql://root:hunter2-database@db",
            FLEET_CONFIG=str(tmp_path / "none.toml"),
            FLEET_FORGE_TOKEN_FILE=str(tmp_path / "none"),
        )
        assert len(said) == 6
        names = (
            "PORT",
            "FLEET_SCAN_SECS",
            "FLEET_WORKER_THREADS",
            "DATABASE_URL",
            "FLEET_CONFIG",
            "FLEET_FORGE_TOKEN_FILE",
        )
        assert all(any(name in fault for fault in said) for name in names)
        assert "hunter2" not in "".join(said)

    @pytest.mark.parametrize("url", ["mysql://db/fleet", "postgresql://", "db/fleet", "sqlite:///fleet.db"])
    def test_a_database_that_is_no_postgres_is_refused(self, tmp_path: Path, url: str) -> None:
        assert faults(tmp_path, DATABASE_URL=url) == [
            "DATABASE_URL must look like postgresql://user:password@host:5432/name."
        ]

    def test_a_home_too_long_for_a_socket_is_refused_where_a_socket_is_needed(self, tmp_path: Path) -> None:
        long = str(tmp_path / ("x" * 120))
        assert "too long" in faults(tmp_path, FLEET_HOME=long, DATABASE_URL="")[0]
        assert config(tmp_path, FLEET_HOME=long).home == Path(long)

    def test_data_go_where_the_desktop_wants_them(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("os.geteuid", lambda: 1000)
        assert default_home({"HOME": "/home/me"}) == Path("/home/me/.local/share/agent-fleet")
        assert default_home({"HOME": "/home/me", "XDG_DATA_HOME": "/data"}) == Path("/data/agent-fleet")

    def test_the_data_of_root_can_be_read_by_others(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("os.geteuid", lambda: 0)
        assert default_home({"HOME": "/root"}) == Path("/var/lib/agent-fleet")


class TestSecrets:
    def test_a_secret_comes_from_its_name_or_from_a_file(self, tmp_path: Path) -> None:
        file = tmp_path / "token"
        file.write_text("from-a-file\n")
        ready = config(
            tmp_path, FLEET_OPERATOR_TOKEN="from-its-name", FLEET_FORGE_TOKEN_FILE=str(file), MY_TOKEN_FILE=str(file)
        )
        assert ready.secret("FLEET_OPERATOR_TOKEN") == "from-its-name"
        assert ready.secret("FLEET_FORGE_TOKEN") == ready.secret("MY_TOKEN") == "from-a-file"
        assert ready.secret(None, str(file)) == "from-a-file"
        assert ready.secret("NOBODY") is ready.secret(None) is ready.secret(None, str(tmp_path / "none")) is None

    def test_a_file_wins_over_a_name(self, tmp_path: Path) -> None:
        file = tmp_path / "token"
        file.write_text("from-a-file")
        assert (
            config(tmp_path, FLEET_FORGE_TOKEN="from-its-name", FLEET_FORGE_TOKEN_FILE=str(file)).secret(
                "FLEET_FORGE_TOKEN"
            )
            == "from-a-file"
        )

    def test_any_setting_may_stand_in_a_file(self, tmp_path: Path) -> None:
        file = tmp_path / "database"
        file.write_text(DATABASE)
        assert config(tmp_path, DATABASE_URL="", DATABASE_URL_FILE=str(file)).database_url.endswith(
            "hunter2-database@db/fleet"
        )

    @pytest.mark.parametrize("content", [None, b"", b" \n", b"\xff\xfe"])
    def test_a_file_without_a_secret_in_it_is_refused(self, tmp_path: Path, content: bytes | None) -> None:
        file = tmp_path / "token"
        if content is not None:
            file.write_bytes(content)
        assert faults(tmp_path, FLEET_WEBHOOK_SECRET_FILE=str(file)) == [
            f"FLEET_WEBHOOK_SECRET_FILE names {file}, which cannot be read or is empty."
        ]

    def test_files_that_others_name_are_their_own_affair(self, tmp_path: Path) -> None:
        assert config(tmp_path, SSL_CERT_FILE="/nowhere").secret("SSL_CERT") is None

    @pytest.mark.parametrize("name", SECRETS)
    def test_the_embedded_default_keeps_its_own(self, tmp_path: Path, name: str) -> None:
        kept = secret_path(tmp_path, name)
        kept.parent.mkdir()
        kept.write_text("kept-in-the-home")
        assert config(tmp_path).secret(name) == "kept-in-the-home"
        assert config(tmp_path, **{name: "given"}).secret(name) == "given"

    def test_none_of_them_is_shown(self, tmp_path: Path) -> None:
        ready = config(tmp_path, **{name: f"hunter2-{name}" for name in SECRETS})
        assert "hunter2" not in repr(ready) and "hunter2" not in str(ready)
        assert "port=9090" in repr(ready)


def declared(tmp_path: Path, toml: str) -> dict[str, Any]:
    path = tmp_path / "fleet.toml"
    path.write_text(toml)
    return read_toml(path)


def faults_of(tmp_path: Path, toml: str) -> list[str]:
    with pytest.raises(ConfigError) as wrong:
        declared(tmp_path, toml)
    prefix = f"{tmp_path / 'fleet.toml'}: "
    assert all(fault.startswith(prefix) for fault in wrong.value.faults)
    return [fault.removeprefix(prefix) for fault in wrong.value.faults]


FORGE = '[forges.main]\nurl = "https://forge.example.org"\n'
HOST = '[[hosts]]\nhost_id = "a"\nhostname = "localhost"\nagents = [{agent_type = "codex"}]\n'


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
            "repositories: team/app names the forge 'other', and there is none of that name: there are main",
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


class TestClisAndBudgets:
    RULE = FORGE + '[[repositories]]\nforge = "main"\nname = "team/app"\ncli = "mine"\n'

    def test_a_budget_in_dollars_needs_a_known_price(self, tmp_path: Path) -> None:
        toml = self.RULE + "budget = { task = { dollars = 5.0 } }\n"
        (said,) = faults_of(tmp_path, toml + '[clis.mine]\nargv = ["x"]\n')
        assert "budget in dollars" in said and "[clis.mine]" in said
        prices = 'model = "m"\n[prices.m]\ninput = 1.0\noutput = 2.0\n'
        for known in ('model = "gpt-5"\n', "reports_cost = true\n", prices):
            assert declared(tmp_path, toml + '[clis.mine]\nargv = ["x"]\n' + known)
        assert declared(tmp_path, toml + '[clis.mine]\npreset = "claude"\n')

    def test_a_budget_in_dollars_needs_the_price_of_whoever_takes_over_at_last(self, tmp_path: Path) -> None:
        chain = "".join(
            f'[clis.{name}]\npreset = "claude"\nfailover = ["{other}"]\n'
            for name, other in (("mine", "two"), ("two", "three"))
        )
        toml = self.RULE + "budget = { task = { dollars = 5.0 } }\n" + chain + '[clis.three]\nargv = ["x"]\n'
        (said,) = faults_of(tmp_path, toml)
        assert "[clis.three]" in said
        (said,) = faults_of(tmp_path, toml.replace('cli = "mine"\n', ""))
        assert "[clis.three]" in said

    def test_a_budget_in_dollars_needs_the_price_of_each_model_that_a_repository_or_a_host_chooses(
        self, tmp_path: Path
    ) -> None:
        toml = self.RULE + 'budget = { task = { dollars = 5.0 } }\nclis = { mine = { model = "m" } }\n'
        toml += '[clis.mine]\npreset = "codex"\nmodel = "gpt-5"\n'
        (said,) = faults_of(tmp_path, toml)
        assert "the model 'm' of the CLI 'mine'" in said and '[prices."m"]' in said
        host = HOST.replace('"codex"', '"mine"') + 'clis = { mine = { model = "h" } }\n'
        (said,) = faults_of(tmp_path, toml + host)
        assert "the model 'h'" in said, "what the host says counts last"
        assert declared(tmp_path, toml + host + "[prices.h]\ninput = 1.0\noutput = 2.0\n")
        assert declared(tmp_path, toml.replace('"codex"', '"claude"') + host), "it tells its dollars itself"

    def test_a_model_that_is_chosen_for_a_repository_or_a_host_has_its_own_price(self, tmp_path: Path) -> None:
        toml = self.RULE + 'clis = { mine = { model = "gpt-5-mini" }, codex = { model = "m" } }\n' + HOST
        fleet = declared(tmp_path, toml + 'clis = { codex = { model = "gpt-5" }, mine = { timeout_secs = 9 } }\n[clis.mine]\nargv = ["x"]\nmodel_flag = ["-m", "{model}"]\n')  # fmt: skip
        (rule,), (host,) = fleet["repositories"], fleet["hosts"]
        assert (rule["clis"]["mine"]["price"]["input"], rule["clis"]["codex"]["price"]) == (0.25, {})
        assert host["clis"]["codex"]["price"]["input"] == 1.25 and "price" not in host["clis"]["mine"]

    def test_a_price_goes_with_its_day(self, tmp_path: Path) -> None:
        clis = declared(
            tmp_path,
            '[clis.a]\nargv = ["x"]\nmodel = "gpt-5"\n[clis.b]\nargv = ["x"]\nmodel = "m"\n[prices.m]\ninput = 1.0\noutput = 2.0\n',
        )["clis"]
        assert clis["a"]["price"]["as_of"] == "2025-11-01" and clis["b"]["price"] == {
            "input": 1.0,
            "cached": 1.0,
            "output": 2.0,
            "as_of": "fleet.toml",
        }

    @pytest.mark.parametrize(
        ("toml", "fault"),
        [
            ('[clis.x]\nargv = ["x"]\nfailover = ["x"]\n', "failover of 'x'"),
            ('[clis.x]\nargv = ["x"]\nfailover = ["a","b","c","d","e","f"]\n', "clis.x.failover"),
            ('[clis.x]\nargv = ["x"]\napart = "no"\n', "clis.x.apart"),
            (FORGE + '[[repositories]]\nforge = "main"\nname = "a/b"\nbudget = { run = { token = 5 } }\n', "budget.run.token"),
            (FORGE + '[[repositories]]\nforge = "main"\nname = "a/b"\nbudget = { run = { tokens = 0 } }\n', "budget.run.tokens"),
            (FORGE + '[[repositories]]\nforge = "main"\nname = "a/b"\nhooks = { before_start = ["x"] }\n', "hooks.before_start"),
            (FORGE + '[[repositories]]\nforge = "main"\nname = "a/b"\ncommit = { trailers = ["x"] }\n', "commit.trailers"),
        ],
    )  # fmt: skip
    def test_what_cannot_hold_is_said(self, tmp_path: Path, toml: str, fault: str) -> None:
        assert any(fault in said for said in faults_of(tmp_path, toml))


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
        assert [fault.partition(", and there is none")[0] for fault in said] == [
            "clis: 'mine' begins with the preset 'kodex'",
            "clis: 'mine' fails over to the CLI 'codx'",
            "repositories: team/app names the CLI 'codx'",
            "hosts: a has slots for the CLI 'min'",
            "repositories: team/app changes the CLI 'claud'",
            "hosts: a changes the CLI 'claud'",
        ]
        assert all(there in fault for fault in said) and "mine" not in said[0].partition("there are")[2]
        assert all("mine" in fault.partition("there are")[2] for fault in said[1:])

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
            "colour: Unknown", "repositories.0.name", "hooks.before_all: is no moment", "hosts.0.host_id", "hosts.0.hostname",
            "hosts.0.agents.0.agent_type", "hosts.0.clis.claud.argv", "clis.mine.parser", "clis.mine.flags.0.argv",
            "names the CLI 'codx'", "slots for the CLI 'min'", "changes the CLI 'claud'", "fails over to the CLI 'nobody'",
            "{workdr} in argv", "'new', which is no number",
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
        assert "hooks.before_start: is no moment of a run: there are before_ and after_ prepare, agent" in hook
        assert all(name in parser for name in ("codex-jsonl", "claude-result", "json-path", "raw"))

    @pytest.mark.parametrize(
        ("said", "fault"),
        [
            ('argv = ["x", "{workdr}"]', "clis: 'x' has {workdr} in argv, which stands for nothing there: there are {flags}"),
            ('argv = ["x", "--id={session_id}"]', "{session_id} in argv"),
            ('argv = ["x"]\nresume = ["x", "{session}"]', "{session} in resume"),
            ('argv = ["x", "-m", "{model}"]', "{model} in argv"),
            ('argv = ["x"]\nmodel_flag = ["-m", "{modell}"]', "{modell} in model_flag"),
            ('argv = ["x"]\nflags = [{ argv = ["{repo}"] }]', "{repo} in flags"),
            ('argv = ["x"]\nenv = { A = "{hom}/.x" }', "{hom} in env"),
            ('argv = ["x"]\nflags = [{ since = "2.0", argv = ["-y"] }]', "and no `version` says how"),
            ('preset = "claude"\nflags = [{ until = "newest", argv = ["-y"] }]', "'newest', which is no number"),
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
            "repositories: team/app: its 'amp' names the model 'm', and no `model_flag` says how the CLI is told of it"
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


@pytest.mark.parametrize(
    "url", ["postgresql://me:hush-hush@db/fleet", "postgresql://db/fleet?user=me&password=hush-hush"]
)
def test_a_password_within_an_address_is_not_shown(url: str) -> None:
    assert "hush-hush" not in _without_password(url)
    assert _without_password("postgresql://db/fleet?user=me") == "postgresql://db/fleet?user=me"
