"""A host that failed is left alone: longer each time, then one caller may try."""

from workers.ssh.circuit_breaker import FIRST_PAUSE_SECS, LONGEST_PAUSE_SECS, Breaker


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def a_breaker() -> tuple[Breaker, Clock]:
    clock = Clock()
    return Breaker(clock, chance=lambda: 0.5), clock


def test_all_may_try_while_all_is_well() -> None:
    breaker, _ = a_breaker()
    assert breaker.pause() == breaker.pause() == 0


def test_after_a_failure_nobody_may_for_a_while() -> None:
    breaker, clock = a_breaker()
    breaker.failed("no route")
    assert breaker.pause() == FIRST_PAUSE_SECS
    assert breaker.why == "no route"
    clock.now += FIRST_PAUSE_SECS / 2
    assert breaker.pause() == FIRST_PAUSE_SECS / 2


def test_then_one_may_and_the_others_wait_for_what_comes_of_it() -> None:
    breaker, clock = a_breaker()
    breaker.failed("no route")
    clock.now += FIRST_PAUSE_SECS
    assert breaker.pause() == 0
    assert breaker.pause() > 0
    breaker.worked()
    assert breaker.pause() == breaker.pause() == 0


def test_pauses_grow_up_to_the_longest() -> None:
    breaker, clock = a_breaker()
    pauses = []
    for _ in range(10):
        breaker.failed("no route")
        pauses.append(breaker.pause())
        clock.now += pauses[-1]
    assert pauses[:4] == [1, 2, 4, 8]
    assert pauses[-1] == LONGEST_PAUSE_SECS


def test_many_who_were_under_way_when_a_host_failed_have_seen_one_failure() -> None:
    breaker, _ = a_breaker()
    for _ in range(8):
        breaker.failed("no route")
    assert breaker.pause() == FIRST_PAUSE_SECS


def test_where_knocking_again_does_harm_the_first_pause_is_the_longest() -> None:
    breaker, _ = a_breaker()
    breaker.failed("it refuses our key", longest=True)
    assert breaker.pause() == LONGEST_PAUSE_SECS


def test_chance_keeps_many_hosts_from_being_tried_together() -> None:
    clock = Clock()
    early, late = Breaker(clock, lambda: 0.0), Breaker(clock, lambda: 1.0)
    for breaker in (early, late):
        breaker.failed("no route")
    assert early.pause() < late.pause()
