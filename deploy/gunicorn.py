"""Configures gunicorn: one process with many threads, since requests mostly wait for Postgres or for work."""

import os
import signal
from pathlib import Path
from typing import Any

bind = f"{os.environ.get('FLEET_BIND', '127.0.0.1')}:{os.environ.get('PORT', '9090')}"
worker_class = "gthread"
workers = 1
threads = int(os.environ.get("FLEET_WEB_THREADS", "64"))
timeout = 60
graceful_timeout = 10
keepalive = 5
accesslog = None
loglevel = "warning"
control_socket_disable = True
worker_tmp_dir = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108 - memory, not disk: a heartbeat


def post_worker_init(worker: Any) -> None:
    """On SIGTERM, answer the long polls at once.

    Otherwise every restart takes `graceful_timeout`, and the agents that poll lose their connection.
    """
    end = signal.getsignal(signal.SIGTERM)

    def answer_and_end(number: int, frame: Any) -> None:
        worker.wsgi.extensions["long_polls"].close()
        if callable(end):
            end(number, frame)

    signal.signal(signal.SIGTERM, answer_and_end)
