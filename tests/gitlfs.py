"""The real git-lfs: the machine's, else one that is unpacked from the distribution's package into a cache."""

import fcntl
import shutil
import subprocess
from pathlib import Path

import pytest

from tests import realclis


def folder() -> str:
    """The folder that git-lfs is in. Skips where it cannot be had."""
    installed = shutil.which("git-lfs")
    if installed:
        return str(Path(installed).parent)
    cache = realclis.cache() / "git-lfs"
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (cache / "usr" / "bin" / "git-lfs").exists():
            _unpack(cache)
    return str(cache / "usr" / "bin")


def _unpack(cache: Path) -> None:
    if not (shutil.which("apt-get") and shutil.which("dpkg")):
        pytest.skip("git-lfs is not installed, and no package of it can be unpacked here")
    for argv in (["apt-get", "download", "git-lfs"], ["apt-get", "update"], ["apt-get", "download", "git-lfs"]):
        subprocess.run(argv, cwd=cache, capture_output=True, check=False, timeout=100)
        for file in cache.glob("git-lfs_*.deb"):
            subprocess.run(["dpkg", "-x", str(file), str(cache)], capture_output=True, check=False)
            return
    pytest.skip("git-lfs is not installed, and its package cannot be had")
