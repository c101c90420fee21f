"""The lifecycle as a page: a diagram and a table, both from `lifecycle.TRANSITIONS`."""

from app.domain.lifecycle import TRANSITIONS, Transition
from app.domain.task import LIVE, State

_HEAD = """# The life of a task

Made from `app/domain/lifecycle.py` by `make docs`; a test fails when this page and the table differ. The first row
whose state and guard hold wins; a fact that no row takes is refused, and nothing changes. A quiet row says what is
known already: it writes no event.

"""


def lifecycle_page() -> str:
    """The whole page as Markdown."""
    return f"{_HEAD}```mermaid\n{_diagram()}\n```\n\n{_table()}\n"


def _diagram() -> str:
    lines = ["stateDiagram-v2", "    [*] --> created: requested"]
    for move in TRANSITIONS:
        if move.to and not move.quiet:
            lines += [f"    {source} --> {move.to}: {move.fact}" for source in _in_order(move) if source != move.to]
    return "\n".join(dict.fromkeys(lines))


def _table() -> str:
    rows = ["| from | fact | to | if | owes | and |", "|---|---|---|---|---|---|"]
    return "\n".join(rows + [_row(move) for move in TRANSITIONS])


def _row(move: Transition) -> str:
    cells = (
        _sources(move),
        move.fact,
        move.to or "(as it was)",
        _words(move.only_if),
        ", ".join(move.owes),
        "quiet" if move.quiet else ", ".join(_words(change) for change in move.also),
    )
    return f"| {' | '.join(cells)} |"


def _sources(move: Transition) -> str:
    named = {frozenset(State): "any", LIVE: "any live", LIVE | {State.AGENT_LOST}: "any live, agent_lost"}
    return named.get(move.source) or ", ".join(_in_order(move))


def _in_order(move: Transition) -> list[State]:
    return [state for state in State if state in move.source]


def _words(function: object) -> str:
    return str(getattr(function, "__name__", "")).replace("_", " ") if function else ""
