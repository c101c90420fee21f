"""The forge's password is given to the forge alone."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from tests.workers.supervisor.account import User
from tests.workers.supervisor.host import (
    Host,
    git,
)
from workers.supervisor.askpass import ASKPASS, serve_secret


def asker(script: Path, question: str, password: str, scheme: str = "http") -> Callable[[], bytes]:
    """Return a function that asks the askpass script as git does, with the secret on descriptor 3."""
    secret = f"{password}\n".encode()
    descriptor = serve_secret(secret)
    own = {
        "FLEET_GIT_SCHEME": scheme,
        "FLEET_GIT_HOST": "forge:3000",
        "FLEET_GIT_USERNAME": "fleet",
        "FLEET_GIT_BYTES": str(len(secret)),
    }
    become = "import os, sys; os.dup2(int(sys.argv[1]), 3); os.execvp('sh', sys.argv[1:])"
    argv = [sys.executable, "-c", become, str(descriptor), str(script), question]
    env = {"PATH": os.environ["PATH"], **own}
    return lambda: subprocess.run(argv, env=env, pass_fds=(descriptor,), stdout=subprocess.PIPE, check=False).stdout


def test_the_askpass_script_answers_with_the_password_32_times(host: Host) -> None:
    word = "p'$(id) w\\n"
    host.finish("true", credentials={"username": "fleet", "password": word})
    asking = asker(host.folder() / "askpass", "Password for 'http://fleet@forge:3000': ", word)
    assert [asking() for _ in range(32)] == [f"{word}\n".encode()] * 32


def test_the_password_is_in_no_environment_and_no_open_file_of_git(host: Host) -> None:
    host.add_hook(
        "pre-receive",
        f"""
        for own in $(grep -l {host.home} /proc/[0-9]*/environ 2>/dev/null); do
            cat $own
            for file in ${{own%environ}}fd/[3-9]; do timeout 0.2 head -c 100 $file; done
        done > {host.place}/seen 2>/dev/null; exit 0
    """,
    )
    host.start_delivery("echo one > file", credentials={"username": "fleet", "password": "s3cret-word"})
    assert host.result()["pushed"]
    seen = (host.place / "seen").read_bytes()
    assert b"FLEET_GIT_USERNAME=fleet" in seen and b"s3cret-word" not in seen


def test_the_password_is_masked_in_the_output_of_git(host: Host) -> None:
    host.add_hook("pre-receive", "echo not with s3cret you do >&2\nexit 1")
    host.start_delivery("echo one > file", credentials={"username": "fleet", "password": "s3cret"})
    reason = host.result()["reason"]
    assert "not with *** you do" in reason and "s3cret" not in reason


class PrivateForge:
    """A forge that answers every request with 401."""

    def __enter__(self) -> PrivateForge:
        class Unauthorized(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(401)
                self.send_header("WWW-Authenticate", 'Basic realm="lib"')
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        self._server = HTTPServer(("127.0.0.1", 0), Unauthorized)
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class TestCredentials:
    @pytest.mark.parametrize(
        ("asked", "answer"),
        [("Username for 'http://forge:3000': ", "fleet"), ("Password for 'http://fleet@forge:3000': ", "hunter2"),
         ("Password for 'http://fleet@evil': ", None), ("Password for 'http://forge:3000.evil': ", None),
         ("Username for 'http://evil/forge:3000': ", None), ('Username for "http://forge:3000"', "fleet"),
         ('Password for "http://fleet@forge:3000"', "hunter2"), ('Password for "http://forge:3000.evil"', None),
         ("Password for 'http:////forge:3000'@evil': ", None), ("Password for 'http://x@forge:3000'@evil': ", None),
         ("Username for 'http://forge:3000': @evil': ", None), ("Password for 'http://other@forge:3000': ", None),
         ("Password for 'https://fleet@forge:3000': ", "hunter2"), ("Password for 'ftp://fleet@forge:3000': ", None)],
    )  # fmt: skip
    def test_are_given_to_the_forge_alone(self, tmp_path: Path, asked: str, answer: str | None) -> None:
        (tmp_path / "askpass").write_bytes(ASKPASS)
        answered = asker(tmp_path / "askpass", asked, "hunter2")()
        assert answered.decode() == (f"{answer}\n" if answer else "")

    @pytest.mark.parametrize(
        "asked", ["Username for 'http://forge:3000': ", "Password for 'http://fleet@forge:3000': "]
    )
    def test_of_a_forge_with_https_are_not_sent_in_the_clear(self, tmp_path: Path, asked: str) -> None:
        (tmp_path / "askpass").write_bytes(ASKPASS)
        assert asker(tmp_path / "askpass", asked, "hunter2", scheme="https")() == b""

    @pytest.mark.parametrize("user", ["", "%2F%2Fforge%27@", "fleet@"])
    def test_are_not_offered_to_a_submodule_whose_address_names_a_user(self, host: Host, user: str) -> None:
        host.make_forge()
        with PrivateForge() as forge:
            modules = f'[submodule "lib"]\n\tpath = lib\n\turl = http://{user}127.0.0.1:{forge.port}/lib.git\n'
            seed = host.place / "seed"
            (seed / ".gitmodules").write_text(modules)
            git("-C", str(seed), "add", ".gitmodules")
            git("-C", str(seed), "update-index", "--add", "--cacheinfo", f"160000,{'a' * 40},lib")
            git("-C", str(seed), "commit", "--quiet", "-m", "with a module")
            git("-C", str(seed), "push", "--quiet", f"file://{host.forge}", "main")
            host.start_delivery("true", credentials={"username": "fleet", "password": "hunter2"})
            said = host.result()["reason"]
        assert "terminal prompts disabled" in said, said
        assert ("askpass" in said) is (user == "")


class TestTheForgesPassword:
    STEAL = 'echo "$@" >> "$(dirname "$0")/stolen"; exec {} "$@"'

    def test_is_not_given_to_a_git_in_the_home_of_a_cli(self, delivering: User) -> None:
        delivering.add_program("git", self.STEAL.format("/usr/bin/git"))
        delivering.start("mine", "echo new > new")
        result = delivering.result("mine")
        assert (result["pushed"], result["warnings"]) == (True, [])
        assert not (delivering.home / ".local" / "bin" / "stolen").exists()

    def test_is_given_to_a_replaceable_git_with_a_warning_if_there_is_no_other(self, delivering: User) -> None:
        delivering.add_program("git", 'exec /usr/bin/git "$@"')
        delivering.request["path"] = f"{delivering.home}/.local/bin"
        delivering.start("mine", "/bin/echo new > new")
        result = delivering.result("mine")
        assert [
            f"git is run from {delivering.home}/.local/bin, where any CLI" in said for said in result["warnings"]
        ] == [True]
