"""Bootstraps hosts behind a real sshd: PATH, home and Python are found, the supervisor is uploaded once, whole, private."""

import stat
from pathlib import Path

import pytest

from tests.sshd import Sshd
from workers.errors import Unreachable
from workers.hosts.client import HostClient
from workers.supervisor import bundle


def uploaded(sshd: Sshd) -> Path:
    return sshd.work() / "bin" / f"{bundle.sha256()}.py"


def test_the_supervisor_is_uploaded_once_whole_and_private(hosts: HostClient, sshd: Sshd) -> None:
    host = sshd.machine()
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert hosts.request(host, "probe", {})["boot_id"] == boot_id
    path = uploaded(sshd)
    assert path.read_bytes() == bundle.source()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    written = path.stat().st_mtime_ns
    hosts.pool.close()
    hosts.request(host, "probe", {})
    assert path.stat().st_mtime_ns == written
    assert not list(path.parent.glob("*.py.*"))


def test_a_supervisor_that_was_deleted_on_the_host_is_uploaded_again(hosts: HostClient, sshd: Sshd) -> None:
    host = sshd.machine()
    hosts.request(host, "probe", {})
    for file in uploaded(sshd).parent.iterdir():
        file.unlink()
    hosts.pool.get(host).close_idle_sessions(0)  # a supervisor that runs needs no file
    assert hosts.request(host, "probe", {})["git"]
    assert uploaded(sshd).read_bytes() == bundle.source()


def test_a_supervisor_that_was_cut_short_on_the_host_is_uploaded_again(hosts: HostClient, sshd: Sshd) -> None:
    host = sshd.machine()
    hosts.request(host, "probe", {})
    uploaded(sshd).write_bytes(bundle.source()[:1000])
    hosts.pool.close()
    assert hosts.request(host, "probe", {})["git"]
    assert uploaded(sshd).read_bytes() == bundle.source()


def test_a_supervisor_that_another_program_rewrote_receives_nothing(hosts: HostClient, sshd: Sshd) -> None:
    host = sshd.machine()
    hosts.request(host, "probe", {})
    path = uploaded(sshd)
    evil = f"import sys; open({str(sshd.folder / 'stolen')!r}, 'wb').write(sys.stdin.buffer.read(10))\n"
    path.write_text(evil)
    for place in (path.with_suffix(".cpython-311.pyc"), path.parent / "hashlib.py", path.parent / "os.py"):
        place.write_text(evil)
    hosts.pool.get(host).close_idle_sessions(0)
    assert hosts.request(host, "probe", {})["git"], "it was uploaded again"
    assert path.read_bytes() == bundle.source()
    assert not (sshd.folder / "stolen").exists()


def test_programs_are_found_on_the_path_of_a_login(hosts: HostClient, sshd: Sshd) -> None:
    tools = sshd.home / "tools"
    tools.mkdir()
    (tools / "mytool").write_text("#!/bin/sh\necho mytool 7.1\n")
    (tools / "mytool").chmod(0o755)
    for profile in (".profile", ".bash_profile", ".zprofile"):
        (sshd.home / profile).write_text(f'echo "a greeting from a profile"\nexport PATH="$PATH:{tools}"\n')
    commands = {"mytool": ["mytool", "--version"], "another": ["nowhere", "--version"]}
    answer = hosts.request(sshd.machine(), "probe", {"clis": commands})
    assert answer["clis"] == {"mytool": "mytool 7.1", "another": None}


def test_a_login_shell_that_prints_at_every_session_does_no_harm(hosts: HostClient, sshd: Sshd) -> None:
    (sshd.home / ".bashrc").write_text("echo hello from bashrc\n")
    assert hosts.request(sshd.machine(), "probe", {})["git"]


def test_a_work_folder_that_is_unsafe_on_a_command_line_is_refused_with_what_to_do(
    hosts: HostClient, sshd: Sshd
) -> None:
    with pytest.raises(Unreachable, match="set work_dir"):
        hosts.request(sshd.machine(work_dir="/tmp/$(touch x)"), "probe", {})


def test_a_tilde_is_the_home_of_the_user_on_the_host(hosts: HostClient, sshd: Sshd) -> None:
    hosts.request(sshd.machine(work_dir="~/.agent-fleet"), "probe", {})
    assert list((sshd.home / ".agent-fleet" / "bin").glob("*.py"))
