"""Checks the history of a race from the rows of `events`, the capabilities of hosts and agents, and arithmetic alone."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Any

import psycopg
from psycopg.rows import dict_row

EVENTS = "SELECT task_pk, seq, kind, from_state, to_state, run, detail, at FROM events ORDER BY task_pk, seq"
SETS = "SELECT id, names FROM requirement_sets"
TAKINGS = {"claimed": ("agent_id", "http_pull"), "placed": ("host_id", "ssh_cli")}
TOLD = {"started", "finished", "failed", "given_back", "expired"}
AT_WORK = {"assigned", "running"}
Event = Mapping[str, Any]


@dataclass(frozen=True)
class Place:
    """An agent or a host: what it can do, and how much at once."""

    capabilities: frozenset[str]
    slots: int


def read(address: str) -> tuple[list[Event], dict[int, frozenset[str]]]:
    """The events of a database, and the sets of requirements that they name."""
    with psycopg.connect(address, row_factory=dict_row) as conn:
        events: list[Event] = list(conn.execute(EVENTS))
        return events, {row["id"]: frozenset(row["names"]) for row in conn.execute(SETS)}


def faults(events: Iterable[Event], sets: Mapping[int, frozenset[str]], places: Mapping[str, Place]) -> list[str]:
    """A sentence for each fault. Empty: each task was done once, by a host or agent that can do it and had a free
    slot, and each undecided task went to one kind of runner."""
    found, work = [], []
    for task, told in groupby(events, key=lambda event: event["task_pk"]):
        story = list(told)
        found += [f"task {task}: {fault}" for fault in _of_a_story(story, sets, places)]
        work += _work(story)
    return found + _crowded(work, places)


def _of_a_story(story: Sequence[Event], sets: Mapping[int, frozenset[str]], places: Mapping[str, Place]) -> list[str]:
    found = _broken_chain(story)
    ends = [event for event in story if event["to_state"] == "completed" != event["from_state"]]
    if len(ends) != 1:
        found.append(f"done {len(ends)} times")
    if story[-1]["to_state"] != "completed":
        found.append(f"left as {story[-1]['to_state']}")
    return found + _wrong_places(story, sets, places) + _old_runs(story)


def _broken_chain(story: Sequence[Event]) -> list[str]:
    found = []
    if [event["seq"] for event in story] != list(range(1, len(story) + 1)):
        found.append("its events are not numbered 1, 2, 3 ...")
    if story[0]["kind"] != "requested":
        found.append("it does not begin with a request")
    for before, event in pairwise(story):
        if event["from_state"] != before["to_state"]:
            found.append(f"event {event['seq']} leaves {event['from_state']}, but it was {before['to_state']}")
    return found


def _wrong_places(story: Sequence[Event], sets: Mapping[int, frozenset[str]], places: Mapping[str, Place]) -> list[str]:
    found, mode = [], story[0]["detail"]["mode"]
    needs = sets[story[0]["detail"]["requirement_set_id"]]
    for event in (event for event in story if event["kind"] in TAKINGS):
        name, side = TAKINGS[event["kind"]]
        place = event["detail"][name]
        if event["from_state"] != "created":
            found.append(f"given to {place} while it was {event['from_state']}")
        if mode not in ("undecided", side):
            found.append(f"{event['kind']} by {place}, though it is for {mode}")
        if lacks := needs - places[place].capabilities:
            found.append(f"given to {place}, which lacks {', '.join(sorted(lacks))}")
        mode = side
    return found


def _old_runs(story: Sequence[Event]) -> list[str]:
    """Each report must come from the newest run."""
    found, run = [], 0
    for event in story:
        run += event["kind"] in TAKINGS
        if event["kind"] in TOLD and event["run"] != run:
            found.append(f"event {event['seq']}: run {event['run']} was believed while run {run} was the newest")
    return found


def _work(story: Sequence[Event]) -> list[tuple[str, Any, Any]]:
    """(host or agent, from, to) for each time that one had the task; `to` is None while it lasts."""
    spans: list[tuple[str, Any, Any]] = []
    holder: tuple[str, Any] | None = None
    for event in story:
        if holder and event["to_state"] not in AT_WORK:
            spans.append((*holder, event["at"]))
            holder = None
        if event["kind"] in TAKINGS:
            holder = event["detail"][TAKINGS[event["kind"]][0]], event["at"]
    return [*spans, (*holder, None)] if holder else spans


def _crowded(work: Iterable[tuple[str, Any, Any]], places: Mapping[str, Place]) -> list[str]:
    steps = defaultdict(list)
    for place, begin, end in work:
        steps[place].append((begin, 1))
        if end is not None:
            steps[place].append((end, -1))
    return [
        f"{place}: {most} tasks at once in {places[place].slots} slots"
        for place, changes in steps.items()
        if (most := _most(changes)) > places[place].slots
    ]


def _most(changes: list[tuple[Any, int]]) -> int:
    """The highest sum on the way; at one moment ends come before beginnings."""
    most = now = 0
    for _, change in sorted(changes):
        now += change
        most = max(most, now)
    return most
