"""Runs on a host, started by a request of the test's own."""

from typing import Any

from app.domain.host import Machine
from tests.patience import wait_until
from workers.hosts.client import HostClient


def a_start(run: str = "t-1.1", script: str = "sleep 0.2; echo done", **given: Any) -> dict[str, Any]:
    """The body of a `start` request whose CLI is a shell script."""
    agent = {"argv": ["sh", "-c", script], "prompt": "do it", "env": {"A_KEY": "hunter2-of-the-agent"}}
    return {"run": run, "task": run.partition(".")[0], "agent": agent, "heartbeat_secs": 0.2, **given}


def wait_for_end(hosts: HostClient, host: Machine, run: str = "t-1.1", **given: Any) -> dict[str, Any]:
    """What the host says of the run once it has ended."""

    def find() -> dict[str, Any]:
        seen = hosts.request(host, "poll", {"runs": [{"run": run}], **given})["runs"][run]
        return dict(seen) if seen.get("result") else {}

    return wait_until(find, f"the end of {run}", 60)
