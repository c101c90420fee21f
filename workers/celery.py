"""The workers' Celery application, and the worker of this process.

Every Celery task is short, carries no arguments, and does nothing if there is nothing to do.
"""

from typing import Any

import structlog
from celery import Celery
from celery.signals import setup_logging, task_failure, worker_process_shutdown, worker_shutdown

from app import broker, wiring
from app.config.settings import Config
from workers.schedule import schedule
from workers.worker import Worker, WorkerOfProcess

CONNECTIONS = 10  # to the database


_of_process = WorkerOfProcess(lambda: Worker(wiring.fleet(connections=CONNECTIONS)))


@worker_shutdown.connect
@worker_process_shutdown.connect
def _close_worker(**_: Any) -> None:
    _of_process.close()


def worker() -> Worker:
    """The worker of this process."""
    return _of_process.get()


@setup_logging.connect
def _keep_our_logs(**_: Any) -> None:
    """Keeps Celery from setting up logging: `app.wiring` has done it."""


@task_failure.connect
def _log_failure(sender: Any = None, exception: BaseException | None = None, **_: Any) -> None:
    """Logs a task that failed; the next one does its work."""
    structlog.get_logger().error("a task failed", task=getattr(sender, "name", None), exc_info=exception)


def _config() -> Config:
    """The settings; sets up logging too."""
    fleet = wiring.fleet(connections=1)
    fleet.engine.dispose()
    return fleet.config


def _make_app() -> Celery:
    config = _config()
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
        beat_scheduler="workers.schedule:QuietScheduler",
        beat_max_loop_interval=5,
        enable_utc=True,
    )
    return celery


app = _make_app()
