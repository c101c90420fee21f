"""The agent's clock: seconds since this machine was booted, sleep included. Setting the time does not move it."""

import time
from pathlib import Path

_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
_BOOT = Path("/proc/sys/kernel/random/boot_id")


def now() -> float:
    return time.clock_gettime(_CLOCK)


def boot() -> str:
    """Which boot the seconds count from: what another one counted means nothing now."""
    return _BOOT.read_text().strip() if _BOOT.exists() else ""
