"""Scenarios that the mock models play for the real CLIs: what they write, run and say, and how they fail."""

from typing import Any

ASKED = {"write": "hello.txt", "content": "hello\n"}
REVIEWED = {"write": "second.txt", "content": "as the review asked\n"}
INSPECT = "env > env.txt; ps -eo args > ps.txt; cat .git > git.txt; git config --list > config.txt 2>&1"
INSPECT_PROCESSES = (
    "grep NoNewPrivs /proc/self/status > privileges.txt; cat /proc/[0-9]*/environ > seen.txt 2> /dev/null; "
    "(true >> .git && echo written || echo denied) > sandbox.txt 2>&1"
)
NEAR = {  # headers of both servers when a limit is near
    "x-codex-primary-used-percent": "91", "x-codex-primary-window-minutes": "300", "x-codex-primary-reset-at": "1900000000",
    "anthropic-ratelimit-unified-status": "allowed_warning", "anthropic-ratelimit-unified-reset": "1900000000",
    "anthropic-ratelimit-unified-representative-claim": "five_hour",
    "anthropic-ratelimit-unified-5h-status": "allowed_warning",
    "anthropic-ratelimit-unified-5h-utilization": "0.91", "anthropic-ratelimit-unified-5h-reset": "1900000000",
}  # fmt: skip
SCENARIOS: dict[str, Any] = {
    "asked": [
        ASKED,
        {"run": f"cp hello.txt copy.txt && echo from-shell >> copy.txt; {INSPECT}"},
        {"say": "Done.", "headers": NEAR},
    ],
    "reviewed": [REVIEWED, {"say": "Done again."}],
    "limited": [ASKED, {"usage_limit": 3600}],
    "rate-limit-forever": [{"rate_limit": 1}],
    "apart": [{"run": INSPECT_PROCESSES}, ASKED, {"say": "Done."}],
    "works-on": [ASKED, *[{"run": f"sleep 1; echo {number}"} for number in range(200)], {"say": "Done."}],
    "killed": [ASKED, {"say": "slow words " * 600, "delay": 0.5}],
}
