"""The boot clock: seconds since this machine was booted, suspend included. Setting the time does not move it."""

import time
from pathlib import Path

_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def now() -> float:
    return time.clock_gettime(_CLOCK)


def boot_id() -> str:
    """Which boot the seconds count from; times of another boot mean nothing. Empty where the kernel has no id."""
    return _BOOT_ID.read_text().strip() if _BOOT_ID.exists() else ""
