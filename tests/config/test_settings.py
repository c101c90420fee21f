"""Settings come from the environment and from files; all that is wrong is said at once."""

from pathlib import Path

import pytest

from app.cli.config import _without_password
from app.config.settings import SECRETS, Config, ConfigError, default_home, read, secret_path

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

    def test_data_go_where_the_desktop_wants_them(self) -> None:
        assert default_home({"HOME": "/home/me"}, is_root=False) == Path("/home/me/.local/share/agent-fleet")
        assert default_home({"HOME": "/home/me", "XDG_DATA_HOME": "/data"}, is_root=False) == Path("/data/agent-fleet")

    def test_the_data_of_root_can_be_read_by_others(self) -> None:
        assert default_home({"HOME": "/root"}, is_root=True) == Path("/var/lib/agent-fleet")


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


@pytest.mark.parametrize(
    "url", ["postgresql://me:hush-hush@db/fleet", "postgresql://db/fleet?user=me&password=hush-hush"]
)
def test_a_password_within_an_address_is_not_shown(url: str) -> None:
    assert "hush-hush" not in _without_password(url)
    assert _without_password("postgresql://db/fleet?user=me") == "postgresql://db/fleet?user=me"
