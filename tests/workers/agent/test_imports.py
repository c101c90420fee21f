"""The agent starts without the server's parts, on machines that may have little memory."""

import subprocess
import sys
from pathlib import Path

SERVER_PARTS = (
    "app.store", "app.services", "app.api", "app.ports", "sqlalchemy", "psycopg", "celery", "redis", "flask",
    "marshmallow", "paramiko", "fabric",
)  # fmt: skip


def test_no_part_of_the_server_is_imported() -> None:
    code = "import sys, workers.agent.__main__, workers.agent.agent; print('\\n'.join(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[3], capture_output=True, text=True, check=True
    )
    loaded = done.stdout.split()
    assert "workers.agent.agent" in loaded
    assert [name for name in SERVER_PARTS if name in loaded] == []
