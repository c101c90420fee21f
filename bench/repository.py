"""repository: what git costs a task on a host: the first and second of a repository of 10,000 files and 1 GB, beside a
plain `git clone` of it; and twenty at once, of a smaller one and of that. FLEET_BENCH_QUICK=1 runs it small."""

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from bench.figures import figure
from workers.supervisor import bundle

QUICK = bool(os.environ.get("FLEET_BENCH_QUICK"))
SMALL = (1_000, 20_000)  # files, bytes in each
FILES, BYTES = SMALL if QUICK else (10_000, 100_000)
AT_ONCE = 20
LIMITS = {"wall_secs": 60, "spare_secs": 0.01 if QUICK else 1.0}
Json = dict[str, Any]


def main() -> None:
    folder = Path(tempfile.mkdtemp(prefix="fleet-bench-repository-"))
    try:
        (folder / "supervisor.py").write_bytes(bundle.source())
        _large(folder / "large")
        _many(folder / "many")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _large(folder: Path) -> None:
    forge, home = folder / "forge.git", folder / "home"
    grow(forge, FILES, BYTES)
    size = sum(path.stat().st_size for path in forge.rglob("*") if path.is_file()) / 1e6
    about = f"repository: {FILES:,} files, {FILES * BYTES / 1e6:,.0f} MB ({size:,.0f} packed)"
    began = time.monotonic()
    _git("clone", "--quiet", f"file://{forge}", str(folder / "clone"))
    plain = time.monotonic() - began
    shutil.rmtree(folder / "clone")
    figure(f"{about}, the first task's git", _one(home, forge, 1), "s", plain)
    figure(f"{about}, the second task's git", _one(home, forge, 2), "s", 2.0)
    figure(f"{about}, the third's after a commit to main", _after_a_commit(home, forge, folder), "s", 2.0)
    need, free = (AT_ONCE + 5) * FILES * BYTES, shutil.disk_usage(folder).free
    if free > need:
        _at_once(about, home, forge, plain)
    else:
        print(f"{AT_ONCE} at once need {need / 1e9:,.0f} GB on the disk: {free / 1e9:,.0f} are free", file=sys.stderr)


def grow(forge: Path, files: int, size: int) -> None:
    """A repository in which each file is unlike every other, and shrinks to half in the pack."""
    forge.parent.mkdir(parents=True)
    _git("init", "--quiet", "--bare", "--initial-branch=main", str(forge))
    chance = random.Random(6)
    argv = ["git", "-c", "core.compression=1", "--git-dir", str(forge), "fast-import", "--quiet"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE) as git:
        assert git.stdin is not None
        say = git.stdin.write
        say(b"commit refs/heads/main\ncommitter A <a@example.org> 1700000000 +0000\ndata 5\nfirst\n")
        for number in range(files):
            content = chance.randbytes(size // 2).hex().encode()
            say(b"M 100644 inline part%d/of%d/file%d.txt\n" % (number % 40, number % 400, number))
            say(b"data %d\n%b\n" % (len(content), content))
        git.stdin.close()
    assert git.returncode == 0


def _one(home: Path, forge: Path, number: int) -> float:
    """One task from its start to its delivery; the seconds of its first step."""
    _start(home, forge, number)
    return _prepared(_result(home, number))


def _after_a_commit(home: Path, forge: Path, folder: Path) -> float:
    clone = folder / "someone"
    _git("clone", "--quiet", "--no-checkout", "--shared", str(forge), str(clone))
    blob = _git("-C", str(clone), "hash-object", "-w", __file__).strip()
    _git("-C", str(clone), "read-tree", "HEAD")
    _git("-C", str(clone), "update-index", "--add", "--cacheinfo", f"100644,{blob},new.py")
    _git("-C", str(clone), "-c", "user.name=A", "-c", "user.email=a@example.org", "commit", "--quiet", "-m", "more")
    _git("-C", str(clone), "push", "--quiet", "origin", "HEAD:main")
    spare = next((home / "mirrors").glob("*.git")) / "worktrees" / "spare"
    while not (spare / "index").exists():  # an agent works for longer than this takes
        time.sleep(0.1)
    return _one(home, forge, 3)


def _many(folder: Path) -> None:
    forge, home = folder / "forge.git", folder / "home"
    grow(forge, *SMALL)
    _at_once(f"repository: {SMALL[0]:,} files", home, forge, None)


def _at_once(about: str, home: Path, forge: Path, plain: float | None) -> None:
    """Tasks begun together; `plain` are the seconds of one clone, of which as many as there are tasks are the measure."""
    about, numbers = f"{about}, {AT_ONCE} tasks at once on one host", range(10, 10 + AT_ONCE)
    measure = plain and plain * AT_ONCE
    began = time.monotonic()
    with ThreadPoolExecutor(AT_ONCE) as all_:
        list(all_.map(lambda number: _start(home, forge, number), numbers))
    results = [_result(home, number) for number in numbers]
    figure(f"{about}, until all are delivered", time.monotonic() - began, "s", measure, AT_ONCE)
    figure(f"{about}, git of the slowest", max(map(_prepared, results)), "s", measure, AT_ONCE)
    figure(
        f"{about}, pushing of the slowest",
        max(float(one["steps"][-1]["seconds"]) for one in results),
        "s",
        None,
        AT_ONCE,
    )


def _prepared(result: Json) -> float:
    assert result["pushed"], result
    return float(result["steps"][0]["seconds"])


def _start(home: Path, forge: Path, number: int) -> None:
    said = _ask("start", {
        "home": str(home), "instance": "bench", "run": f"t-{number}.1", "task": f"t-{number}", "limits": LIMITS,
        "agent": {"argv": ["sh", "-c", "sleep 1; echo done > done.txt"], "prompt": "do it"},
        "repository": {"url": f"file://{forge}", "base": "main", "branch": f"task/{number}"},
        "delivery": {"message": "Do it", "author_name": "A", "author_email": "a@example.org"},
    })  # fmt: skip
    assert said["state"] == "started", said


def _result(home: Path, number: int) -> Json:
    path = home / "runs" / "bench" / f"t-{number}.1" / "result.json"
    while not path.exists():
        time.sleep(0.05)
    found: Json = json.loads(path.read_text())
    return found


def _ask(verb: str, request: Json) -> Json:
    supervisor = Path(request["home"]).parents[1] / "supervisor.py"
    argv = [sys.executable, "-I", "-S", str(supervisor), verb]
    done = subprocess.run(argv, input=json.dumps(request).encode(), capture_output=True, check=False)
    answer: Json = json.loads(done.stdout)
    return answer


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    main()
