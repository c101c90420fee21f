"""Finds an sshd to run: installed, unpacked from the distribution's package, or asyncssh's server.

Where sshd is not installed it is unpacked into the tests' own folder. CI installs it. Where neither is possible,
asyncssh's server replaces it, and the summary of the tests says so.
"""

import fcntl
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

TOP = Path(__file__).parents[1]
PACKAGES = ("openssh-server", "libwrap0", "libwtmpdb0")  # a machine with ssh, but without sshd, may lack these
NAME = "program"


@dataclass(frozen=True)
class Program:
    """How to run sshd here. `libraries` are those that were unpacked with it; no `path` means asyncssh."""

    path: str | None
    libraries: str = ""

    @property
    def name(self) -> str:
        return "sshd" if self.path else "asyncssh, since no sshd can be had"


def find(folder: Path) -> Program:
    """The machine's sshd, else one that is unpacked below `folder`, else one that CI installs."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:  # the first of several test processes does it
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = _given() or _installed() or _unpacked(folder) or _install() or Program(None)
        (folder / NAME).write_text(found.name)
        return found


def found_in(folder: Path) -> str | None:
    """The program that `find` found, for the summary of the tests."""
    return (folder / NAME).read_text() if (folder / NAME).exists() else None


def _given() -> Program | None:
    """FLEET_TEST_SSHD names an sshd, or is `asyncssh`."""
    path = os.environ.get("FLEET_TEST_SSHD")
    return Program(None if path == "asyncssh" else path) if path else None


def _installed() -> Program | None:
    path = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    return Program(path) if path else None


def _unpacked(folder: Path) -> Program | None:
    root = folder / "root"
    if not root.is_dir() and shutil.which("apt-get") and shutil.which("dpkg"):
        for package in PACKAGES:  # one that this distribution does not have is not needed either
            _quietly(["apt-get", "download", package], folder)
        for file in folder.glob("*.deb"):
            _quietly(["dpkg", "-x", str(file), str(root)], folder)
    path = root / "usr" / "sbin" / "sshd"
    libraries = ":".join(str(place) for place in (*root.glob("usr/lib/*-linux-gnu*"), *root.glob("lib/*-linux-gnu*")))
    program = Program(str(path), libraries)
    return program if path.exists() and _runs(program) else None


def _install() -> Program | None:
    """Only where the machine is there for tests alone. No service is started by it."""
    if os.geteuid() or not (os.environ.get("CI") == "true" and shutil.which("apt-get")):
        return None
    policy = Path("/usr/sbin/policy-rc.d")
    ours = not policy.exists()
    if ours:
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
    try:
        _quietly(["apt-get", "update"], TOP)
        _quietly(["apt-get", "install", "-y", "--no-install-recommends", "openssh-server"], TOP)
    finally:
        if ours:
            policy.unlink()
    return _installed()


def _quietly(argv: list[str], folder: Path) -> int:
    environ = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    return subprocess.run(argv, cwd=folder, env=environ, capture_output=True, check=False, timeout=300).returncode


def _runs(program: Program) -> bool:
    done = subprocess.run(
        [program.path or "", "-V"], capture_output=True, text=True, env=environment(program), check=False
    )
    return "OpenSSH" in done.stderr


def environment(program: Program) -> dict[str, str]:
    """The environment for sshd: PATH, and the libraries that were unpacked with it."""
    kept = {"PATH": os.environ.get("PATH", os.defpath)}
    return kept | ({"LD_LIBRARY_PATH": program.libraries} if program.libraries else {})
