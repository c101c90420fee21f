"""Each process makes one worker, for all its threads, and closes it at its end."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from threading import enumerate as all_threads

import pytest

from app.ports import Fleet
from tests.patience import wait_until
from workers.worker import Worker, WorkerOfProcess

THREADS = 8


def test_threads_that_need_the_worker_at_once_share_one(fleet: Fleet, make_worker: Callable[..., Worker]) -> None:
    of_process, together = WorkerOfProcess(lambda: make_worker(fleet)), Barrier(THREADS)

    def get() -> Worker:
        together.wait()
        return of_process.get()

    with ThreadPoolExecutor(THREADS) as threads:
        found = {id(one.result()) for one in [threads.submit(get) for _ in range(THREADS)]}
    assert len(found) == 1


def test_no_worker_is_made_before_a_task_needs_it_and_none_is_left_after_the_end(
    fleet: Fleet, make_worker: Callable[..., Worker]
) -> None:
    made: list[Worker] = []

    def make() -> Worker:
        made.append(make_worker(fleet))
        return made[-1]

    of_process = WorkerOfProcess(make)
    of_process.close()
    assert made == []
    first = of_process.get()
    of_process.close()
    assert of_process.get() is not first


def test_a_closed_worker_has_no_threads(worker: Worker) -> None:
    before = set(all_threads())
    worker.prober.probe_due()
    worker.start_threads.submit(lambda: None).result()
    with worker.hosts.deadlines.within(60, lambda: None):
        pass
    assert set(all_threads()) - before
    worker.close()
    wait_until(lambda: not set(all_threads()) - before, "its threads have ended")
    with pytest.raises(RuntimeError, match="shutdown"):
        worker.start_threads.submit(lambda: None)
