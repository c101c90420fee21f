"""The circuit breaker: after a failure no caller may try for a pause that grows; then one may."""

from workers.ssh.circuit_breaker import FIRST_PAUSE_SECS, LONGEST_PAUSE_SECS, CircuitBreaker


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def a_breaker() -> tuple[CircuitBreaker, Clock]:
    clock = Clock()
    return CircuitBreaker(clock, chance=lambda: 0.5), clock


def test_all_callers_may_try_before_a_failure() -> None:
    breaker, _ = a_breaker()
    assert breaker.seconds_to_wait() == breaker.seconds_to_wait() == 0


def test_no_caller_may_try_during_the_pause() -> None:
    breaker, clock = a_breaker()
    breaker.failed("no route")
    assert breaker.seconds_to_wait() == FIRST_PAUSE_SECS
    assert breaker.why == "no route"
    clock.now += FIRST_PAUSE_SECS / 2
    assert breaker.seconds_to_wait() == FIRST_PAUSE_SECS / 2


def test_after_the_pause_one_caller_may_try_and_the_others_wait_for_its_result() -> None:
    breaker, clock = a_breaker()
    breaker.failed("no route")
    clock.now += FIRST_PAUSE_SECS
    assert breaker.seconds_to_wait() == 0
    assert breaker.seconds_to_wait() > 0
    breaker.succeeded()
    assert breaker.seconds_to_wait() == breaker.seconds_to_wait() == 0


def test_pauses_grow_up_to_the_longest() -> None:
    breaker, clock = a_breaker()
    pauses = []
    for _ in range(10):
        breaker.failed("no route")
        pauses.append(breaker.seconds_to_wait())
        clock.now += pauses[-1]
    assert pauses[:4] == [1, 2, 4, 8]
    assert pauses[-1] == LONGEST_PAUSE_SECS


def test_callers_under_way_when_the_host_failed_count_as_one_failure() -> None:
    breaker, _ = a_breaker()
    for _ in range(8):
        breaker.failed("no route")
    assert breaker.seconds_to_wait() == FIRST_PAUSE_SECS


def test_a_failure_that_must_not_be_repeated_starts_with_the_longest_pause() -> None:
    breaker, _ = a_breaker()
    breaker.failed("it refuses our key", longest=True)
    assert breaker.seconds_to_wait() == LONGEST_PAUSE_SECS


def test_jitter_keeps_many_hosts_from_being_tried_together() -> None:
    clock = Clock()
    early, late = CircuitBreaker(clock, lambda: 0.0), CircuitBreaker(clock, lambda: 1.0)
    for breaker in (early, late):
        breaker.failed("no route")
    assert early.seconds_to_wait() < late.seconds_to_wait()
