"""Renders docs/lifecycle.md, a diagram and a table, from `lifecycle.TRANSITIONS`."""

from app.domain.lifecycle import TRANSITIONS, Transition, in_words
from app.domain.task import LIVE, State

_HEAD = """# The lifecycle of a task

`make docs` writes this page from `app/domain/lifecycle.py`; a test fails when they differ. The first row applies whose
state matches and whose guard holds. A fact for which no row applies is refused, and nothing changes. A row marked quiet
changes nothing and writes no event.

"""


def lifecycle_page() -> str:
    """The whole page as Markdown."""
    return f"{_HEAD}```mermaid\n{_diagram()}\n```\n\n{_table()}\n"


def _diagram() -> str:
    lines = ["stateDiagram-v2", "    [*] --> created: requested"]
    for row in TRANSITIONS:
        if row.target and not row.quiet:
            moves = [source for source in _in_order(row) if source != row.target]
            lines += [f"    {source} --> {row.target}: {row.fact}" for source in moves]
    return "\n".join(dict.fromkeys(lines))


def _table() -> str:
    rows = ["| from | fact | to | if | outbox | changes |", "|---|---|---|---|---|---|"]
    return "\n".join(rows + [_row(transition) for transition in TRANSITIONS])


def _row(row: Transition) -> str:
    cells = (
        _sources(row),
        row.fact,
        row.target or "(stays)",
        in_words(row.only_if) if row.only_if else "",
        ", ".join(row.outbox),
        "quiet" if row.quiet else ", ".join(in_words(change) for change in row.changes),
    )
    return f"| {' | '.join(cells)} |"


def _sources(row: Transition) -> str:
    named = {frozenset(State): "any", LIVE: "any live", LIVE | {State.AGENT_LOST}: "any live, agent_lost"}
    return named.get(row.sources) or ", ".join(_in_order(row))


def _in_order(row: Transition) -> list[State]:
    return [state for state in State if state in row.sources]
