"""Flags fit the installed version of a CLI, and programs are found where people keep them."""

from __future__ import annotations

import pytest

from tests.workers.supervisor.host import (
    Host,
    Json,
)


class TestFlags:
    def wish(self, said: str) -> Json:
        flags = [{"since": "2.1.200", "argv": ["new"]}, {"argv": ["ever"]}]
        return {
            "argv": ["sh", "-c", 'echo "$@"', "sh", "{flags}", "end"],
            "flags": flags,
            "version": ["sh", "-c", said],
        }

    @pytest.mark.parametrize(
        ("said", "words"), [("echo 2.1.330 x", "new ever end"), ("echo 2.1.197", "ever end"), ("exit 1", "ever end")]
    )
    def test_fit_the_installed_version(self, host: Host, said: str, words: str) -> None:
        host.start(agent=self.wish(said))
        host.result()
        assert (host.folder() / "stdout.log").read_text().strip() == words

    def test_a_program_in_the_users_folder_is_found(self, host: Host) -> None:
        own = host.user_home / ".local" / "bin"
        own.mkdir(parents=True)
        (own / "mytool").write_text("#!/bin/sh\necho mine\n")
        (own / "mytool").chmod(0o755)
        host.start(agent={"argv": ["mytool"]})
        assert host.result()["end"] == "finished"

    def test_a_program_on_the_path_of_the_login_shell_is_found(self, host: Host) -> None:
        place = host.user_home / "node" / "v22" / "bin"
        place.mkdir(parents=True)
        (place / "mytool").write_text("#!/bin/sh\necho mine\n")
        (place / "mytool").chmod(0o755)
        (host.user_home / ".profile").write_text(f'PATH="{place}:$PATH"\n')
        _, answer = host.call("start", host.request(agent={"argv": ["mytool"]}), env={"SHELL": "/bin/sh"})
        assert answer["state"] == "started" and host.result()["end"] == "finished"
