"""Fills the database with waiting tasks, and measures what a search among them costs."""

import hashlib
from datetime import UTC, datetime
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from app.store import dequeue

# What an agent can do makes the case: everything there is, what one task in a thousand needs, what only the last in the
# queue needs, what none needs.
ALL, RARE, NEWEST, NONE = "all match", "one in a thousand", "only the newest", "none"
CASES = (ALL, RARE, NEWEST, NONE)
PROMPT = {"goal": "Fix it", "constraints": [], "validation": [], "text": "# Fix it\n\nNow.\n"}
_TASKS = """
INSERT INTO tasks (id, task_id, state, mode, priority, requirement_set_id, version, ready, created_at, moved_at, wants_pull, max_retries, retry_count,
                   review_count, unconfirmed, run)
SELECT n, 'load#' || n, 'created', 'undecided', CASE WHEN n = %(waiting)s THEN 0 ELSE 1 + n %% 3 END,
       CASE WHEN n = %(waiting)s THEN 1 WHEN n %% 1000 = 500 THEN 2 ELSE 3 + n %% %(sets)s END, 1, true, now(), now(), false, 2, 0, 0, 0, 0
FROM generate_series(1, %(waiting)s) n
"""
_DETAILS = """
INSERT INTO task_details (task_pk, source, task_type, title, requirements, labels, prompt, prompt_sha256, validation, timeout_secs)
SELECT id, 'api', 'task', 'Fix it', 'Now.', '{}', %(prompt)s, '0', '{}', 60 FROM tasks
WHERE requirement_set_id < 3 OR id <= %(texts)s
"""


def can(case: str, sets: int) -> list[str]:
    """The capabilities of the agent of a case."""
    return {ALL: ["newest", "rare", *_words(sets)], RARE: ["rare"], NEWEST: ["newest"], NONE: ["nothing"]}[case]


def fill(conn: psycopg.Connection[Any], waiting: int, sets: int = 5, texts: int | None = None) -> None:
    """So many tasks waiting, of so many sets of requirements, and for each case its agent. Texts for the first `texts`
    alone, where nobody will ask for more. `conn` commits by itself."""
    conn.execute("SET session_replication_role = replica")  # history is not to be emptied otherwise
    conn.execute("TRUNCATE tasks, requirement_sets, agents RESTART IDENTITY CASCADE")
    given = {"waiting": waiting, "sets": sets, "texts": waiting if texts is None else texts, "prompt": Jsonb(PROMPT)}
    with conn.cursor() as cursor:
        names = [["newest"], ["rare"], *([word] for word in _words(sets))]
        cursor.executemany("INSERT INTO requirement_sets (names) VALUES (%s)", [(one,) for one in names])
    conn.execute(_TASKS, given)
    conn.execute(_DETAILS, given)
    conn.execute("SELECT setval(pg_get_serial_sequence('tasks', 'id'), %s)", (waiting + 1,))
    conn.execute("RESET session_replication_role")
    for case in CASES:
        enlist(conn, case, capabilities=can(case, sets))
    conn.execute("VACUUM ANALYZE tasks, task_details, requirement_sets, agents")


def enlist(
    conn: psycopg.Connection[Any], agent_id: str, token_hash: bytes | None = None, slots: int = 1000,
    capabilities: list[str] | None = None,
) -> None:  # fmt: skip
    conn.execute(
        "INSERT INTO agents (agent_id, agent_type, hostname, capabilities, max_concurrency, metadata, token_hash, registered_at, seen_at)"
        " VALUES (%s, 'load', 'h', %s, %s, '{}', %s, now(), now())",
        (agent_id, capabilities, slots, token_hash or _hash(agent_id)),
    )


def asking(agent_id: str = ALL, most: int = 1) -> dequeue.Search:
    """The question of an agent for work."""
    return dequeue.Search(agent_id, _hash(agent_id), None, most, None, datetime.now(UTC))


def statements(conn: psycopg.Connection[Any], case: str, sets: int, most: int = 1) -> list[tuple[str, dict[str, Any]]]:
    """The statements by which the agent of a case looks for work: those that it needs, as it comes to them."""
    near = (dequeue._NEAR[most > 1, False], asking(case, most)._asdict())
    found = conn.execute(*near).fetchall()
    if found and found[0][4] is not None:
        return [near]
    row = conn.execute(
        "SELECT array_agg(id) FROM requirement_sets WHERE names <@ %s::text[]", (can(case, sets),)
    ).fetchone()
    met = (row and row[0]) or []
    far = {"sets": met, "deep": max(dequeue.DEEP[0], most), "most": most, "held": []}
    return [near, *([(dequeue._OF_SETS["ssh_cli", False], far), (dequeue._ANY[False], far)] if met else [])]


def explained(conn: psycopg.Connection[Any], statement: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    """The executed plan of a statement, as it is once it is prepared. What it locked is let go."""
    text, given = statement
    with conn.transaction(force_rollback=True):
        conn.execute("SET LOCAL plan_cache_mode = force_generic_plan")
        row = conn.execute(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {text}", given, prepare=True).fetchone()
    assert row is not None
    plan: dict[str, Any] = row[0][0]["Plan"]
    return plan


def pages(conn: psycopg.Connection[Any], case: str, sets: int) -> int:
    """How many pages it takes the agent of a case to find its work."""
    found = [explained(conn, one) for one in statements(conn, case, sets)]
    return sum(int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]) for plan in found)


def _words(sets: int) -> list[str]:
    return [f"s{number}" for number in range(sets)]


def _hash(agent_id: str) -> bytes:
    return hashlib.sha256(agent_id.encode()).digest()
