"""When the rounds run. Beats may be many: a round that has nothing to do does nothing."""

from typing import Any

from app.broker import WORK
from app.config.settings import Config
from workers.runs.cleanup import EVERY_SECS


def schedule(config: Config) -> dict[str, dict[str, Any]]:
    """Celery's beat schedule, in seconds. A tick nobody took within its interval is dropped: the next one will do."""
    every = {
        WORK: config.scan_secs,
        "fleet.rescue": config.scan_secs,
        "fleet.look": config.look_secs,
        "fleet.probe": min(config.scan_secs, config.probe_secs),  # each host has its own time
        "fleet.reconcile": config.reconcile_secs,
        "fleet.sweep": EVERY_SECS,
    }
    return {name: {"task": name, "schedule": secs, "options": {"expires": secs}} for name, secs in every.items()}
