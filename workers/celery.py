"""The workers' Celery application. Every task is short, carries nothing, and does nothing when nothing is to do."""

from functools import cache
from typing import Any

import structlog
from celery import Celery
from celery.signals import setup_logging, task_failure

from app import broker, wiring
from app.ports import Fleet
from workers.schedule import schedule

CONNECTIONS = 10


@cache
def fleet() -> Fleet:
    """What this process works with, made when the first task runs: after any fork."""
    return wiring.fleet(connections=CONNECTIONS)


@setup_logging.connect
def _keep_our_logs(**_: Any) -> None:
    """Celery leaves logging alone: `wiring` has set it up."""


@task_failure.connect
def _say_what_broke(sender: Any = None, exception: BaseException | None = None, **_: Any) -> None:
    """A round that broke is in our log; the next one does its work."""
    structlog.get_logger().error("a round broke", round=getattr(sender, "name", None), exc_info=exception)


def _make() -> Celery:
    config = fleet().config
    celery = Celery("fleet", broker=config.redis_url, include=["workers.tasks"])
    celery.conf.update(
        broker_transport_options=broker.broker_options(),
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        task_ignore_result=True,
        worker_prefetch_multiplier=1,
        worker_cancel_long_running_tasks_on_connection_loss=True,
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        worker_hijack_root_logger=False,
        task_default_queue=broker.QUEUE,
        task_create_missing_queues=True,
        beat_schedule=schedule(config),
        beat_scheduler="workers.ticks:Ticks",
        beat_max_loop_interval=5,
        enable_utc=True,
    )
    return celery


app = _make()
