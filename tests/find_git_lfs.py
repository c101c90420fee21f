"""Finds the real git-lfs: installed, or unpacked from the distribution's package into a cache."""

import fcntl
import shutil
import subprocess
from pathlib import Path

from tests import real_clis
from tests.summary import had, lacks

NAME = "Git LFS"


def folder() -> str:
    """The folder of git-lfs. Skips the test where there is none; the summary of the tests names the version or the reason."""
    found = shutil.which("git-lfs") or _unpacked()
    version = subprocess.run([found, "version"], capture_output=True, text=True, check=True).stdout.split()[0]
    had(NAME, f"Git LFS was tested with {version}")
    return str(Path(found).parent)


def _unpacked() -> str:
    cache = real_clis.cache() / "git-lfs"
    cache.mkdir(parents=True, exist_ok=True)
    program = cache / "usr" / "bin" / "git-lfs"
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not program.exists():
            _unpack(cache)
    return str(program)


def _unpack(cache: Path) -> None:
    if not (shutil.which("apt-get") and shutil.which("dpkg")):
        lacks(NAME, "it is not installed, and no package of it can be unpacked here")
    for argv in (["apt-get", "download", "git-lfs"], ["apt-get", "update"], ["apt-get", "download", "git-lfs"]):
        subprocess.run(argv, cwd=cache, capture_output=True, check=False, timeout=100)
        for file in cache.glob("git-lfs_*.deb"):
            subprocess.run(["dpkg", "-x", str(file), str(cache)], capture_output=True, check=False)
            return
    lacks(NAME, "it is not installed, and its package cannot be had")
