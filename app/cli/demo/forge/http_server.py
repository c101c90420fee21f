"""Serves HTTP/1.1 with connections that stay open, and can cut them."""

from __future__ import annotations

import contextlib
import io
import socket
import time
import traceback
from http import HTTPStatus
from typing import Any

from werkzeug.exceptions import InternalServerError
from werkzeug.serving import WSGIRequestHandler
from werkzeug.wrappers import Response


class Cut(ConnectionError):
    """The connection shall break without an answer."""


class KeepAlive(WSGIRequestHandler):
    """werkzeug's handler closes after each answer; this one does not, for the app reads each body whole."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    open_sockets: set[socket.socket]

    def setup(self) -> None:
        super().setup()
        self.open_sockets.add(self.connection)

    def finish(self) -> None:
        self.open_sockets.discard(self.connection)
        with contextlib.suppress(OSError):
            super().finish()

    def run_wsgi(self) -> None:
        if self.headers.get("Expect", "").lower() == "100-continue":
            self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self.wfile.flush()
        self.environ = environ = self.make_environ()
        try:
            answer = Response.from_app(self.server.app, environ, buffered=True)
        except ConnectionError:
            self.close_connection = True
            cut(self.connection)
            return
        except Exception:
            self.close_connection = True
            traceback.print_exc()
            answer = Response.from_app(InternalServerError(), environ, buffered=True)
        with contextlib.suppress(ConnectionError):
            self.write_answer(answer)

    def write_answer(self, answer: Response) -> None:
        body = answer.get_data()
        empty = answer.status_code == HTTPStatus.NO_CONTENT or self.command == "HEAD"
        self.send_response(answer.status_code)
        for name, value in answer.headers:
            if name != "Content-Length":
                self.send_header(name, value)
        if answer.status_code != HTTPStatus.NO_CONTENT:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if not empty:
            self.wfile.write(body)
        self.wfile.flush()

    def log(self, type: str, message: str, *args: Any) -> None:
        """Nobody reads it."""


def listen(port: int, patience: float = 5.0) -> socket.socket:
    """Bind; a port just left may be taken for a moment by the connections that were cut on it."""
    deadline = time.monotonic() + patience
    while True:
        try:
            return socket.create_server(("127.0.0.1", port), backlog=128)
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.005)


def cut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError, io.UnsupportedOperation):
        connection.shutdown(socket.SHUT_RDWR)
