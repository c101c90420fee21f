"""The scheduler of beat wakes when a task is due, and not again and again shortly before."""

import time

from celery import Celery

from tests.patience import wait_until
from workers.schedule import QuietScheduler


def test_it_wakes_a_few_times_for_each_task_and_sends_every_one() -> None:
    app = Celery("schedule", broker="memory://")
    app.conf.beat_schedule = {f"every {secs}": {"task": "t", "schedule": secs} for secs in (0.1, 0.15)}
    scheduler, sent, woken = QuietScheduler(app=app), list[str](), 0
    scheduler.apply_entry = lambda entry, producer=None: sent.append(entry.name)

    def wake() -> None:
        nonlocal woken
        time.sleep(max(0, scheduler.tick()))  # real waiting: the scheduler is what is tested
        woken += 1

    wait_until(
        lambda: sent.count("every 0.1") >= 5 and sent.count("every 0.15") >= 3, "the tasks", meanwhile=wake, pause=0
    )
    assert woken <= 6 * len(sent)
