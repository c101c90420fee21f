"""Requests to a host behind a real sshd: a start happens once, secrets stay hidden, large logs arrive whole."""

import hashlib
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from app.domain.host import Address, Machine
from tests.patience import wait_until
from tests.remote_runs import a_start, wait_for_end
from tests.silent_proxy import wire
from tests.sshd import Sshd
from tests.workers.ssh.quick import QUICK
from workers.errors import Unreachable
from workers.hosts.client import HostClient, HostLimits
from workers.ssh.pool import SshLimits

SIZE, PIECE = 100 << 20, bytes(range(256)) * 4096


def test_five_starts_of_one_run_at_once_make_one_process(hosts: HostClient, sshd: Sshd) -> None:
    host, mark = sshd.machine(), sshd.folder / "starts"
    start = a_start(script=f"echo once >> {mark}; sleep 0.3")
    with ThreadPoolExecutor(5) as pool:
        answers = list(pool.map(lambda _: hosts.request(host, "start", start), range(5)))
    assert sorted(answer["state"] for answer in answers) == ["known"] * 4 + ["started"]
    assert len({answer["pid"] for answer in answers}) == 1
    wait_for_end(hosts, host)
    assert mark.read_text() == "once\n"


def test_a_start_whose_answer_was_lost_is_found_and_not_repeated(
    make_hosts: Callable[..., HostClient], sshd: Sshd
) -> None:
    mark = sshd.folder / "starts"
    with wire(sshd.addresses[0], sshd.port) as silent:
        hosts = make_hosts(limits=HostLimits(ssh=SshLimits(QUICK, {"start": 1.0})))
        host = sshd.machine(ssh_port=silent.port)
        hosts.request(host, "probe", {})
        silent.deaf_after = 30_000
        start = a_start(script=f"echo once >> {mark}; sleep 0.3")
        start["agent"]["prompt"] = "do it " * 10_000
        with pytest.raises(Unreachable, match="took longer"):
            hosts.request(host, "start", start)
    host = sshd.machine()
    assert wait_for_end(hosts, host)["result"]["end"] == "finished"
    assert hosts.request(host, "start", a_start(script=f"echo once >> {mark}"))["state"] == "known"
    assert mark.read_text() == "once\n"


def test_a_child_process_with_its_own_client_does_not_disturb_ours(
    make_hosts: Callable[..., HostClient], sshd: Sshd
) -> None:
    host, ours = sshd.machine(), make_hosts()
    ours.request(host, "probe", {})
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(writer, b"fine" if make_hosts().request(host, "probe", {})["git"] else b"none")
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        assert pipe.read() == b"fine"
    os.waitpid(pid, 0)
    assert ours.request(host, "probe", {})["git"]


def test_no_secret_is_in_the_arguments_or_environment_of_any_process(hosts: HostClient, sshd: Sshd) -> None:
    host, seen, is_over = sshd.machine(), list[str](), threading.Event()
    credentials = {"username": "fleet", "password": "hunter2-of-the-forge"}

    def watch() -> None:
        while not is_over.is_set():
            seen.extend(arguments_and_environments(sshd.folder))

    watcher = threading.Thread(target=watch)
    watcher.start()
    script = f"until [ -e {sshd.folder}/go ]; do sleep 0.02; done"
    hosts.request(host, "start", a_start(credentials=credentials, script=script))
    wait_until(lambda: any("A_KEY=" in line for line in list(seen)), "the agent is seen at work")
    (sshd.folder / "go").touch()
    ended = wait_for_end(hosts, host)
    is_over.set()
    watcher.join()
    assert ended["result"]["end"] == "finished"
    assert any("-I" in line and "serve" in line for line in seen), "the supervisor was seen at work"
    assert not any("hunter2" in line for line in seen if "A_KEY=" not in line)
    with_key = [line for line in seen if "A_KEY=" in line]
    assert all("sleep" in line for line in with_key), "only the agent and its children have its key"


@pytest.mark.parametrize(
    ("hostname", "work_dir", "home"),
    [
        ("localhost", None, "/srv/fleet/work"),
        ("192.0.2.10", None, "~/.agent-fleet"),
        ("192.0.2.10", "/srv/agents", "/srv/agents"),
    ],
)
def test_our_folder_is_the_work_dir_of_the_host_or_a_default(hostname: str, work_dir: str | None, home: str) -> None:
    client = HostClient(Path("/srv/fleet/work"), lambda: "i1")
    assert client.home(Machine("h", Address(hostname), work_dir=work_dir)) == home


def arguments_and_environments(folder: Path) -> list[str]:
    """The arguments and environment of each process that names `folder` in one of them.

    Leaves out a process that ends or executes another program between the two readings.
    """
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            before, environ, after = (_text(path / name) for name in ("cmdline", "environ", "cmdline"))
        except OSError:
            continue
        if before and before == after and str(folder) in before + environ:
            found.append(f"{before} {environ}")
    return found


def _text(path: Path) -> str:
    return path.read_bytes().replace(b"\0", b" ").decode(errors="replace")


def test_a_hundred_megabytes_of_output_arrive_whole_in_bounded_memory(hosts: HostClient, sshd: Sshd) -> None:
    host = sshd.machine()
    (sshd.folder / "piece").write_bytes(PIECE)
    script = f"for i in $(seq {SIZE // len(PIECE)}); do cat {sshd.folder}/piece; done"
    hosts.request(host, "start", a_start(script=script))
    wait_for_end(hosts, host, limit=1)
    process, digest, offset, most = psutil.Process(), hashlib.sha256(), 0, 0
    before = process.memory_info().rss
    while offset < SIZE:
        body = {"runs": [{"run": "t-1.1", "stdout": offset, "stderr": 0}], "limit": 8 << 20}
        data = hosts.request(host, "poll", body)["runs"]["t-1.1"]["stdout"]["data"]
        digest.update(data)
        offset += len(data)
        most = max(most, process.memory_info().rss - before)
    assert digest.hexdigest() == hashlib.sha256(PIECE * (SIZE // len(PIECE))).hexdigest()
    assert most < 100 << 20
