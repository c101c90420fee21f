"""Many tasks work at once on one host and repository."""

from __future__ import annotations

import hashlib
import zlib
from concurrent.futures import ThreadPoolExecutor

from tests.patience import wait_until
from tests.workers.supervisor.host import (
    Host,
    Json,
    git,
)


class TestTwentyTasks:
    """Each agent waits for all others, so twenty worktrees and then twenty pushes are there at once."""

    TOGETHER = "touch {all}/{number}; until [ $(ls {all} | wc -l) -ge 20 ]; do sleep 0.05; done; echo {number} > new"

    def run_all(self, host: Host) -> dict[str, Json]:
        (host.place / "all").mkdir()

        def start(number: int) -> None:
            own = {
                "run": f"n-{number}.1",
                "task": f"n-{number}",
                "repository": host.repository(branch=f"task/{number}"),
            }
            host.start_delivery(self.TOGETHER.format(all=host.place / "all", number=number), **own)

        with ThreadPoolExecutor(20) as pool:
            list(pool.map(start, range(20)))
        names = [f"n-{number}.1" for number in range(20)]
        for name in names:
            wait_until((host.folder(name) / "result.json").exists, f"{name} has a result", 60)
        seen = host.ask("poll", runs=[{"run": name} for name in names])["runs"]
        return {name: seen[name]["result"] for name in names}

    def test_deliver_at_the_same_time(self, host: Host) -> None:
        host.make_forge()
        results = self.run_all(host)
        assert {result["reason"] for result in results.values()} == {None}
        shown = (line.split() for line in host.forge_git("show-ref", "--heads").splitlines())
        heads = {name: sha for sha, name in shown if "task" in name}
        assert heads == {f"refs/heads/task/{number}": results[f"n-{number}.1"]["head"] for number in range(20)}

    def test_deliver_while_git_packs_the_mirror(self, host: Host) -> None:
        host.finish("echo first > first")
        (host.mirror() / "objects" / "17").mkdir(exist_ok=True)
        for number in range(6000):  # git estimates the number of loose objects from folder 17
            content = b"blob %d\0%d" % (len(str(number)), number)
            name = hashlib.sha1(content).hexdigest()
            if name.startswith("17"):
                (host.mirror() / "objects" / "17" / name[2:]).write_bytes(zlib.compress(content))
        assert {result["reason"] for result in self.run_all(host).values()} == {None}
        pack = host.mirror() / "objects" / "pack"
        wait_until(lambda: list(pack.glob("*.pack")), "git has packed the mirror")
        assert git("--git-dir", str(host.mirror()), "fsck", "--no-dangling", "--connectivity-only") == ""
