"""Which host gets a task, and the sentence for each that does not."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.domain.host import Address, Fitness, Host, Probe, Slots
from app.domain.matching import capability, choose, refusal, refusals, required, waits

NEEDS = frozenset({"python"})
HERE = Address("localhost")


def some_slots(agent_type: str = "codex", room: int = 2, taken: int = 0, can: str = "python") -> Slots:
    return Slots(agent_type, room, frozenset(can.split()), taken)


def a_host(host_id: str = "a", *slots: Slots, **given: Any) -> Host:
    return Host(host_id, HERE, slots=slots or (some_slots(),), **{"fitness": Fitness.FIT} | given)


class TestCapabilities:
    @pytest.mark.parametrize("label", ["agent:rust", "rust", " Agent:Rust ", "RUST"])
    def test_a_label_and_its_capability_are_the_same(self, label: str) -> None:
        assert capability(label) == "rust"

    @pytest.mark.parametrize(
        ("labels", "needs"),
        [
            ([], ()),
            (["bug", "status:todo"], ()),
            (["agent:rust", "bug", "agent:gpu"], ("gpu", "rust")),
            (["agent:rust", "Agent:RUST"], ("rust",)),
            (["agent:", "agent: "], ()),
        ],
    )
    def test_only_labels_with_the_prefix_ask_for_something(self, labels: list[str], needs: tuple[str, ...]) -> None:
        assert required(labels) == needs


class TestChoice:
    def test_the_least_loaded_gets_it(self) -> None:
        busy, idle = a_host("a", some_slots(room=4, taken=2)), a_host("b", some_slots(room=4, taken=1))
        choice = choose(NEEDS, [busy, idle])
        assert choice and choice.host is idle
        assert choice.refusals == {"a": "more loaded or later in the order than b"}

    def test_load_is_the_share_of_slots_not_their_number(self) -> None:
        big, small = a_host("a", some_slots(room=10, taken=3)), a_host("b", some_slots(room=2, taken=1))
        choice = choose(NEEDS, [small, big])
        assert choice and choice.host is big

    def test_among_equals_the_one_that_had_it_before(self) -> None:
        choice = choose(NEEDS, [a_host("a"), a_host("b"), a_host("c")], before="b")
        assert choice and choice.host.host_id == "b"

    def test_among_equals_the_first_by_name(self) -> None:
        choice = choose(NEEDS, [a_host("c"), a_host("a"), a_host("b")])
        assert choice and choice.host.host_id == "a"

    def test_the_kind_of_cli_that_can_do_it_is_chosen_too(self) -> None:
        host = a_host("a", some_slots("claude", can="review"), some_slots("codex", can="python"))
        choice = choose(NEEDS, [host])
        assert choice and choice.slots.agent_type == "codex"

    def test_a_cli_that_is_asked_for_is_the_one(self) -> None:
        host = a_host("a", some_slots("claude"), some_slots("codex"))
        choice = choose(NEEDS, [host], cli="codex")
        assert choice and choice.slots.agent_type == "codex"

    def test_a_host_nobody_has_looked_at_yet_is_tried(self) -> None:
        assert choose(NEEDS, [a_host(fitness=Fitness.UNKNOWN)])

    @pytest.mark.parametrize("hosts", [[], [a_host(fitness=Fitness.UNFIT)], [a_host("a", some_slots(can=""))]])
    def test_where_nobody_can_there_is_none(self, hosts: list[Host]) -> None:
        assert choose(NEEDS, hosts) is None


class TestRefusal:
    @pytest.mark.parametrize(
        ("host", "why"),
        [
            (a_host(), None),
            (a_host("a", some_slots(can="rust")), "codex lacks python"),
            (a_host("a", some_slots(taken=2)), "codex is full 2/2"),
            (a_host("a", some_slots(taken=5)), "codex is full 5/2"),
            (a_host("a", some_slots("claude", can=""), some_slots(taken=2)), "claude lacks python; codex is full 2/2"),
            (a_host(fitness=Fitness.DRAINING), "draining"),
            (a_host(fitness=Fitness.QUARANTINED, why="the key was refused"), "quarantined: the key was refused"),
            (Host("a", HERE, Fitness.FIT), "it has no slots"),
        ],
    )
    def test_says_what_is_in_the_way(self, host: Host, why: str | None) -> None:
        assert refusal(NEEDS, host) == why

    def test_names_all_that_is_missing(self) -> None:
        assert refusal(frozenset({"gpu", "rust", "python"}), a_host()) == "codex lacks gpu, rust"

    def test_names_the_cli_that_was_asked_for(self) -> None:
        assert refusal(NEEDS, a_host(), cli="claude") == "no slot for claude"

    def test_is_told_of_each_host_that_cannot(self) -> None:
        hosts = [a_host("a"), a_host("b", some_slots(taken=2))]
        assert refusals(NEEDS, hosts) == {"b": "codex is full 2/2"}

    @pytest.mark.parametrize("fitness", list(Fitness))
    def test_only_fit_and_unknown_hosts_take_work(self, fitness: Fitness) -> None:
        assert (refusal(NEEDS, a_host(fitness=fitness)) is None) == (fitness in (Fitness.FIT, Fitness.UNKNOWN))


some_hosts = st.lists(
    st.builds(
        lambda id_, fitness, slots: Host(id_, HERE, fitness, slots=tuple(slots)),
        st.sampled_from("abcdef"),
        st.sampled_from(Fitness),
        st.lists(
            st.builds(
                Slots,
                st.sampled_from(["codex", "claude"]),
                st.integers(0, 3),
                st.frozensets(st.sampled_from(["python", "rust"])),
                st.integers(0, 4),
            ),
            max_size=3,
        ),
    ),
    max_size=5,
    unique_by=lambda host: host.host_id,
)


@given(some_hosts, st.frozensets(st.sampled_from(["python", "rust"])), st.sampled_from([None, "codex", "claude"]))
@settings(max_examples=150, deadline=None, database=None)
def test_whoever_is_chosen_can_do_it_and_everybody_else_hears_why(
    hosts: list[Host], needs: frozenset[str], cli: str | None
) -> None:
    choice = choose(needs, hosts, cli=cli)
    refused = refusals(needs, hosts, cli)
    if choice is None:
        assert refused.keys() == {host.host_id for host in hosts}
        return
    assert choice.host.takes_work and choice.slots.free and needs <= choice.slots.capabilities
    assert cli in (None, choice.slots.agent_type)
    assert choice.refusals.keys() == {host.host_id for host in hosts} - {choice.host.host_id}
    assert all(choice.refusals.values()) and refused.items() <= choice.refusals.items()


def test_free_slots_are_never_less_than_none() -> None:
    assert some_slots(room=1, taken=3).free == 0
    assert Host("a", HERE).share_taken == 0


class TestMeasuredLoad:
    def test_among_equal_shares_the_machine_with_less_to_do_gets_it(self) -> None:
        busy, idle = a_host("a", probe=Probe(load_per_cpu=3.0)), a_host("b", probe=Probe(load_per_cpu=0.4))
        choice = choose(NEEDS, [busy, idle], before="a")
        assert choice and choice.host is idle
        assert choice.because == "the least loaded of 2: 0/2 slots taken, load 0.4 a CPU"

    def test_the_share_of_slots_counts_more_than_the_load(self) -> None:
        taken = a_host("a", some_slots(taken=1), probe=Probe(load_per_cpu=0.1))
        free = a_host("b", probe=Probe(load_per_cpu=9.0))
        choice = choose(NEEDS, [taken, free])
        assert choice and choice.host is free

    def test_who_goes_on_with_a_session_goes_where_that_is(self) -> None:
        home, idle = a_host("a", some_slots(taken=1), probe=Probe(load_per_cpu=3.0)), a_host("b")
        choice = choose(NEEDS, [home, idle], before="a", goes_on=True)
        assert choice and choice.host is home
        assert choice.because == "the session to go on with is there"

    def test_unless_that_host_cannot_take_it(self) -> None:
        full, idle = a_host("a", some_slots(taken=2)), a_host("b")
        choice = choose(NEEDS, [full, idle], before="a", goes_on=True)
        assert choice and choice.host is idle
        assert choice.because == "no other host can take it now"


class TestSentence:
    SINCE = datetime(2026, 11, 24, 3, 12, tzinfo=UTC)

    @pytest.mark.parametrize(
        ("host", "words"),
        [
            (a_host("a"), "host a lacks it"),
            (a_host("b", some_slots(can="gpu", taken=2)), "host b full 2/2"),
            (
                a_host("c", fitness=Fitness.QUARANTINED, why="host key changed", since=SINCE),
                "host c quarantined since 03:12 on 24 Nov: host key changed",
            ),
            (a_host("d", replace(some_slots(can="gpu"), missing=True)), "host d has no codex installed"),
            (Host("e", HERE, Fitness.FIT), "host e has no slot for anything"),
        ],
    )
    def test_says_in_few_words_what_is_in_the_way(self, host: Host, words: str) -> None:
        assert waits(frozenset({"gpu"}), [host]) == [words]

    def test_says_nothing_of_a_host_that_can(self) -> None:
        assert waits(NEEDS, [a_host()]) == []

    def test_a_host_over_ssh_that_nobody_has_looked_at_takes_no_work(self) -> None:
        host = Host("a", Address("build.example.org"), slots=(some_slots(),))
        assert choose(NEEDS, [host]) is None
        assert waits(NEEDS, [host]) == ["host a unknown"]
