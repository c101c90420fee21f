"""journey: from the answered delivery to the started CLI, 50 tasks one after the other, beside a bare subprocess."""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx

from app.cli.demo.forge import FakeForge
from app.cli.demo.forge.sample_data import add_sample_data
from app.cli.demo.stage import CAPABILITY, REPOSITORY, RunningForge, Stage, stage
from app.forgejo.signature import sign
from bench.figures import figure, quantile

TASKS, WARM_UP = 50, 5


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="fleet-bench-") as folder, FakeForge(Path(folder)) as forge:
        users = add_sample_data(forge)
        with stage(0, RunningForge(forge.url, users)) as set_:
            forge.faults.webhooks_off = True
            label = set_.alice.label(REPOSITORY, CAPABILITY)
            times, bare = [], []
            for number in range(WARM_UP + TASKS):
                bare.append(_bare_start())
                times.append(_one(set_, label, number))
    times, bare = times[WARM_UP:], bare[WARM_UP:]
    for share in (0.5, 0.99):
        alone = quantile(bare, share)
        name = f"journey: delivery answered -> CLI started, p{share * 100:.0f}"
        figure(name, quantile(times, share), "ms", alone, TASKS)
        figure(f"{name}, over a bare start", quantile(times, share) - alone, "ms", None, TASKS)


def _one(set_: Stage, label: int, number: int) -> float:
    """One issue: the milliseconds from the 202 to the exec of its CLI."""
    issue = set_.alice.open_issue(REPOSITORY, f"Task {number}", "Do it.", [label])
    body = json.dumps({
        "action": "opened", "number": issue, "issue": {"number": issue},
        "repository": {"id": 42, "full_name": REPOSITORY}, "sender": {"login": "alice"},
    }).encode()  # fmt: skip
    secret = set_.config.secret("FLEET_WEBHOOK_SECRET") or ""
    headers = {
        "X-Forgejo-Event-Type": "issues",
        "X-Forgejo-Delivery": f"bench-{number}",
        "X-Forgejo-Signature": sign(secret, body),
    }
    httpx.post(f"{set_.config.public_url}/api/v1/webhooks/forgejo", content=body, headers=headers).raise_for_status()
    answered = time.time()
    folder = set_.config.home / "work" / "runs"
    while True:
        for path in folder.glob(f"*/acme-widgets-{issue}-*/state.json"):
            state = json.loads(path.read_text())
            if state.get("agent_started_at"):
                _wait_until_done(path.with_name("result.json"))
                return float(state["agent_started_at"] - answered) * 1000
        time.sleep(0.005)


def _wait_until_done(result: Path) -> None:
    while not result.exists():
        time.sleep(0.01)
    time.sleep(0.7)


def _bare_start() -> float:
    began = time.monotonic()
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    took = (time.monotonic() - began) * 1000
    process.wait()
    return took


if __name__ == "__main__":
    main()
