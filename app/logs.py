"""Configures structured logs: one JSON object a line, secrets masked."""

import sys
from collections.abc import Mapping
from typing import Any

import structlog

from app.config import settings
from app.domain.masking import Mask

log = structlog.get_logger()


def set_up_logs(mask: Mask, stream: Any = None) -> None:
    """Write each log entry as a line of JSON to `stream`, else to standard error."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            lambda _, __, line: mask.json(line),
            structlog.processors.JSONRenderer(default=str),
        ],
        logger_factory=structlog.PrintLoggerFactory(stream or sys.stderr),
        cache_logger_on_first_use=False,
    )


def announce(event: Mapping[str, Any]) -> None:
    """Log an event of a task after its commit."""
    detail = event["detail"]
    log.info(
        str(event["kind"]),
        task=event["task_id"],
        run=event["number"],
        moved=f"{event['from_state'] or '-'} -> {event['to_state']}",
        **{
            name: detail[name]
            for name in ("host_id", "reason", "why", "number", "head")
            if detail.get(name) is not None
        },
    )


def is_secret(name: str) -> bool:
    """Whether an environment variable of this name holds a secret."""
    return name in settings.SECRETS or any(word in name.upper() for word in ("TOKEN", "SECRET", "PASSWORD", "API_KEY"))
