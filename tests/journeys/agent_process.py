"""Runs the reference agent as a process without hosts, and can cut its connection to the server."""

import json
import os
import re
import secrets
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from app.cli.demo.stage import REPOSITORY, end_local_runs
from tests.journeys.issue_journey import Journey
from tests.patience import patient

TOP = Path(__file__).parents[2]
QUICK = {
    "FLEET_HEARTBEAT_SECS": "1", "FLEET_OFFLINE_AFTER_SECS": "60", "FLEET_CONFIRM_SECS": "20", "FLEET_RECONCILE_SECS": "2",
}  # fmt: skip


class AgentProcess:
    """The agent, with a state folder of its own; `program` is what is called."""

    program: tuple[str, ...] = ("workers.agent",)

    def __init__(self, travel: Journey, folder: Path, slots: int = 1) -> None:
        self.travel, self.state, self.log = travel, folder / "state", folder / "agent.log"
        self.can = f"can-{secrets.token_hex(4)}"
        self.agent_id = f"puller-{self.can}"
        self.process: subprocess.Popen[bytes] | None = None
        coder = TOP / "app" / "cli" / "demo" / "coder.py"
        self.hold = folder / "hold"
        argv = [sys.executable, str(coder), "--seconds", "0.2", "--hold", str(self.hold)]
        resume = [*argv, "--resume", "{session_id}"]
        clis = folder / "clis.toml"
        clis.write_text(f'[clis.coder]\nargv = {argv}\nresume = {resume}\nparser = "codex-jsonl"\n')
        self.words = [
            "--server", travel.stage.config.public_url, "--capability", self.can, "--cli", "coder",
            "--slots", str(slots), "--agent-id", self.agent_id, "--state", str(self.state), "--clis", str(clis),
        ]  # fmt: skip
        self.environ = {
            "PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), "FLEET_LOOK_SECS": "0.2",
            "FLEET_ENROLL_TOKEN": travel.stage.config.secret("FLEET_ENROLL_TOKEN") or "",
            "FLEET_FORGE_TOKEN": travel.stage.environ["FLEET_FORGE_TOKEN"], "PYTHONPATH": str(TOP),
        }  # fmt: skip

    @contextmanager
    def held(self) -> Iterator[None]:
        """Its CLI works on until the block ends, or until it is ended."""
        self.hold.touch()
        try:
            yield
        finally:
            self.hold.unlink()

    def issue(self, title: str = "Fix off-by-one in total()", body: str = "The last price is left out.") -> str:
        """An issue that only this agent can work on."""
        label = self.travel.stage.alice.label(REPOSITORY, f"agent:{self.can}")
        return f"{REPOSITORY}#{self.travel.stage.alice.open_issue(REPOSITORY, title, body, [label])}"

    def start(self) -> None:
        with self.log.open("ab") as log:
            argv = [sys.executable, "-m", *self.program, *self.words]
            self.process = subprocess.Popen(argv, env=self.environ, stdout=log, stderr=log, start_new_session=True)

    def send(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        self.send(signal.SIGKILL)
        assert self.process is not None
        self.process.wait(patient(10))

    def code(self) -> int:
        """The exit code, once it has ended."""
        assert self.process is not None
        return self.process.wait(patient(30))

    def runs(self) -> list[dict[str, Any]]:
        """state.json of every run on this machine."""
        return [json.loads(path.read_text()) for path in sorted(self.state.glob("work/runs/*/*/state.json"))]

    def at_work(self) -> list[int]:
        """The pids of the CLIs that live."""
        pids = [state["agent_pid"] for state in self.runs() if state.get("agent_pid")]
        return [pid for pid in pids if psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie"]

    def holds(self) -> list[dict[str, Any]]:
        return [json.loads(path.read_text()) for path in sorted(self.state.glob("holds/*.json"))]

    def steps(self) -> list[str]:
        return [str(hold["step"]) for hold in self.holds()]

    def said(self) -> list[dict[str, Any]]:
        """Its log, line by line; each line is JSON."""
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]

    def end(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.kill()
        end_local_runs(self.state / "work")


@contextmanager
def pulling(travel: Journey, folder: Path, **given: Any) -> Iterator[AgentProcess]:
    """An agent, not started yet, that can do what no other agent of this stage can."""
    puller = AgentProcess(travel, folder, **given)
    try:
        yield puller
    except AssertionError as error:
        said = puller.log.read_text()[-6000:] if puller.log.exists() else "nothing"
        error.add_note(f"--- the agent said\n{said}")
        raise
    finally:
        puller.end()


class Wire:
    """A TCP proxy in front of the server. It can be cut, and it can lose the answer to the next request that matches."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.is_cut = False
        self.lost: list[bytes] = []
        self._lose: re.Pattern[bytes] | None = None
        self._open: set[socket.socket] = set()
        threading.Thread(target=self._serve, daemon=True).start()

    def cut(self) -> None:
        """Nothing goes through any more."""
        self.is_cut = True
        for end in list(self._open):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        self.is_cut = False

    def lose_the_answer_to(self, path: str) -> None:
        """The next request whose first line matches arrives, and its answer does not."""
        self._lose = re.compile(path.encode())

    def close(self) -> None:
        self.cut()
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._carry, args=(near,), daemon=True).start()

    def _carry(self, near: socket.socket) -> None:
        with near, suppress(OSError):
            if self.is_cut:
                return
            with socket.create_connection(("127.0.0.1", self._to)) as far:
                self._open |= {near, far}
                try:
                    self._exchange(near, far)
                finally:
                    self._open -= {near, far}

    def _exchange(self, near: socket.socket, far: socket.socket) -> None:
        losing = False
        while not self.is_cut:
            for end in select.select([near, far], [], [], 0.5)[0]:
                data = end.recv(1 << 16)
                if not data:
                    return
                if end is far and losing:
                    return
                if end is near and self._lose and self._lose.search(data.split(b"\r\n", 1)[0]):
                    self.lost.append(data.split(b"\r\n", 1)[0])
                    self._lose, losing = None, True
                (far if end is near else near).sendall(data)
