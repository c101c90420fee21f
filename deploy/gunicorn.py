"""gunicorn's settings: one process with threads, since Postgres does the work; more threads for streams later."""

import os
from pathlib import Path

bind = f"{os.environ.get('FLEET_BIND', '127.0.0.1')}:{os.environ.get('PORT', '9090')}"
worker_class = "gthread"
workers = 1
threads = int(os.environ.get("FLEET_WEB_THREADS", "16"))
timeout = 60
graceful_timeout = 10
keepalive = 5
accesslog = None
loglevel = "warning"
control_socket_disable = True
worker_tmp_dir = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108 - memory, not disk: a heartbeat
