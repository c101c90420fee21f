"""A probe answers what a host is and has."""

from __future__ import annotations

import subprocess
import time

from tests.patience import patient
from tests.workers.supervisor.account import User, landlock_version
from tests.workers.supervisor.host import (
    Host,
    parse_answer,
)


def test_a_probe_describes_the_host(host: Host) -> None:
    slow = ["sh", "-c", "sleep 60"]
    began = time.monotonic()
    answer = host.ask(
        "probe", clis={"one": ["echo", "one 1.2"], "none": ["no-such-cli"], "slow": slow, "bad": ["false"]}
    )
    assert time.monotonic() - began < patient(9)
    assert answer["clis"] == {"one": "one 1.2", "none": None, "slow": None, "bad": None}
    assert answer["git"].startswith("git version")
    assert answer["disk_free"] > 0 and answer["memory_available"] > 0 and len(answer["load"]) == 3


def test_a_probe_names_the_git_that_is_used_and_whether_clis_can_be_isolated(user: User) -> None:
    user.add_program("git", "echo of its own")
    argv = [user.python, "-I", "-S", str(user.home / "supervisor.py"), "probe"]
    done = subprocess.run(
        argv, input=b"{}", stdout=subprocess.PIPE, check=True, cwd=user.home, env=user.env, **user.how
    )
    answer = parse_answer(done.stdout)
    assert answer["apart"] is (landlock_version() >= 6)
    assert answer["git"].startswith("git version")
