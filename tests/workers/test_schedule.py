"""The clock of the rounds: it wakes when one is due, and not again and again shortly before."""

import time

from celery import Celery

from tests.patience import wait_until
from workers.ticks import Ticks


def test_it_wakes_a_few_times_for_each_round_and_forgets_none() -> None:
    app = Celery("ticks", broker="memory://")
    app.conf.beat_schedule = {f"every {secs}": {"task": "round", "schedule": secs} for secs in (0.1, 0.15)}
    ticks, sent, woken = Ticks(app=app), list[str](), 0
    ticks.apply_entry = lambda entry, producer=None: sent.append(entry.name)

    def wake() -> None:
        nonlocal woken
        time.sleep(max(0, ticks.tick()))  # real waiting: the clock of the rounds is what is tested
        woken += 1

    wait_until(
        lambda: sent.count("every 0.1") >= 5 and sent.count("every 0.15") >= 3, "rounds", meanwhile=wake, pause=0
    )
    assert woken <= 6 * len(sent)
