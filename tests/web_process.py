"""A real web process, as the Procfile starts it, on a database of its own."""

import http.client
import json
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.request import urlopen

import psutil
from flask import Flask
from flask.testing import FlaskClient

from app.cli.demo.stage import free_port
from app.cli.local.launcher import TOP
from app.cli.local.process_manager import ChildProcess
from app.ports import Fleet
from app.web import attach_fleet, create_app
from tests import servers
from tests.agent_client import BASE, ENROLL
from tests.patience import patient, wait_until

OPERATOR = "operator-token-of-the-test"
_built: list[Flask] = []


class Caller(FlaskClient):
    """A client of one fleet. A test process builds the application once, which takes a tenth of a second, and sets its
    fleet for each call."""

    fleet: Fleet

    def open(self, *args: Any, **kwargs: Any) -> Any:
        if self.application.extensions["fleet"] is not self.fleet:
            attach_fleet(self.application, self.fleet)
        return super().open(*args, **kwargs)


def client_of(fleet: Fleet) -> FlaskClient:
    """The web application's client, in this process."""
    app = application_of(fleet)
    client = Caller(app, app.response_class)
    client.fleet = fleet
    return client


def application_of(fleet: Fleet) -> Flask:
    """The web application of this process, set to work for this fleet."""
    if not _built:
        _built.append(create_app(fleet))
    attach_fleet(_built[0], fleet)
    return _built[0]


class Web:
    """One gunicorn. After `kill`, `start` uses the same port."""

    def __init__(self, database: str, **environ: str) -> None:
        self.port, self.database = free_port(), database
        given = servers.config(DATABASE_URL=database, REDIS_URL=servers.valkey_url(), PORT=str(self.port), **environ)
        argv = [sys.executable, "-m", "gunicorn", "--config", "deploy/gunicorn.py", "app.web:create_app()"]
        env = os.environ | given | {"PYTHONPATH": str(TOP)}
        self.log = servers.home() / "log" / f"web-{self.port}.log"
        self._child = ChildProcess("web", argv, env, log=self.log)

    def start(self) -> None:
        self._child.start()
        wait_until(self._answers, "the web process is ready", 60, meanwhile=self._assert_alive, details=self._log_end)

    def kill(self) -> None:
        """Kill it with its workers."""
        self._child.kill_group()
        assert self._child.process is not None
        self._child.process.wait()

    def stop(self) -> None:
        self._child.stop()

    def pids(self) -> list[int]:
        """The master and its workers."""
        assert self._child.process is not None
        master = psutil.Process(self._child.process.pid)
        return [master.pid, *(worker.pid for worker in master.children(recursive=True))]

    def call(self, method: str, path: str, token: str = OPERATOR, **body: Any) -> tuple[int, Any]:
        """The status and the JSON of an answer; None where it has no body."""
        link = http.client.HTTPConnection("127.0.0.1", self.port, timeout=patient(40))
        try:
            return ask(link, method, path, token, **body)
        finally:
            link.close()

    def raw(self, request: bytes, then: bytes = b"") -> tuple[int, dict[str, str], bytes]:
        """Send these bytes; return status, headers and body of the answer."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=patient(20)) as link:
            link.sendall(request)
            if then:
                link.sendall(then)
            answer = http.client.HTTPResponse(link)
            answer.begin()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()

    def register(self, agent_id: str, **about: Any) -> str:
        """The token of a new agent."""
        given = {"agent_id": agent_id, "agent_type": "codex", "hostname": "h", "capabilities": ["python"], **about}
        status, told = self.call("POST", "/agents/register", ENROLL, **given)
        assert status in (200, 201), told
        return str(told["registry_token"])

    def _answers(self) -> bool:
        try:
            with urlopen(f"http://127.0.0.1:{self.port}/readyz", timeout=patient(1)) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def _assert_alive(self) -> None:
        assert not self._child.is_dead(), self._log_end()

    def _log_end(self) -> str:
        return self.log.read_text()[-3000:]


def ask(link: http.client.HTTPConnection, method: str, path: str, token: str, **body: Any) -> tuple[int, Any]:
    """Send one request over an open connection. `headers` in the body are sent as headers."""
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"} | body.pop("headers", {})
    link.request(method, f"{BASE}{path}", json.dumps(body) if method == "POST" else None, headers)
    answer = link.getresponse()
    said = answer.read()
    return answer.status, json.loads(said) if said else None


@contextmanager
def web_process(database: str, **environ: str) -> Iterator[Web]:
    web = Web(database, **environ)
    try:
        web.start()
        yield web
    finally:
        web.stop()
