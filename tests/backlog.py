"""A backlog of waiting tasks, made in bulk, and what it costs to find one's own among them."""

import json
from datetime import UTC, datetime
from typing import Any

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from app.store import claims

ALL, RARE, NEWEST, NONE = "all match", "one in a thousand", "only the newest", "none"
CASES = (ALL, RARE, NEWEST, NONE)
CAN = ["can"]
TOKEN = b"0" * 32
# Which set the n-th of `waiting` tasks needs: set 1 is what the agent can do, the others are not, except where all match.
_SET = {
    ALL: "1 + n % %(sets)s", RARE: "CASE WHEN n % 1000 = 500 THEN 1 ELSE 2 + n % (%(sets)s - 1) END",
    NEWEST: "CASE WHEN n = %(waiting)s THEN 1 ELSE 2 + n % (%(sets)s - 1) END", NONE: "2 + n % (%(sets)s - 1)",
}  # fmt: skip
_TASKS = """
INSERT INTO tasks (id, task_id, state, mode, priority, capset_id, version, ready, created_at, moved_at, wants_pull, max_retries, retry_count,
                   review_count, unconfirmed, run)
SELECT nextval(pg_get_serial_sequence('tasks', 'id')), 'load#' || currval(pg_get_serial_sequence('tasks', 'id')), 'created', 'undecided',
       CASE WHEN %(one_priority)s THEN 1 ELSE n %% 4 END, {set}, 1, true, now(), now(), false, 2, 0, 0, 0, 0
FROM generate_series(1, %(waiting)s) n
"""
_BRIEFS = """
INSERT INTO briefs (task_pk, source, task_type, title, requirements, labels, prompt, prompt_sha256, validation, timeout_secs)
SELECT id, 'api', 'task', 'Fix it', 'Now.', '{}', %(prompt)s, '0', '{}', 60 FROM tasks
ON CONFLICT DO NOTHING
"""
PROMPT = {"goal": "Fix it", "constraints": [], "validation": [], "text": "# Fix it\n\nNow.\n"}


def fill(conn: psycopg.Connection[Any], waiting: int, sets: int, case: str) -> None:
    """So many tasks waiting, of so many sets of requirements. `conn` commits by itself."""
    conn.execute("SET session_replication_role = replica")  # history is not to be emptied otherwise
    conn.execute("TRUNCATE tasks, capsets, agents RESTART IDENTITY CASCADE")
    conn.execute("RESET session_replication_role")
    names = [CAN if case == ALL or number == 0 else ["cannot", f"s{number}"] for number in range(sets)]
    with conn.cursor() as cursor:
        cli = [
            f"cli-{number}" if case == ALL else "" for number in range(sets)
        ]  # sets with the same names differ by it
        cursor.executemany("INSERT INTO capsets (names, cli) VALUES (%s, %s)", list(zip(names, cli, strict=True)))
    given = {"waiting": waiting, "sets": sets, "one_priority": case == NEWEST, "prompt": Jsonb(PROMPT)}
    chosen = sql.SQL(_SET[case].replace(" % ", " %% "))
    conn.execute(sql.SQL(_TASKS).format(set=chosen), given)
    conn.execute(_BRIEFS, given)
    conn.execute("VACUUM ANALYZE tasks, briefs, capsets")


def enlist(conn: psycopg.Connection[Any], agent_id: str, token_hash: bytes = TOKEN, slots: int = 1000) -> None:
    conn.execute(
        "INSERT INTO agents (agent_id, agent_type, hostname, capabilities, max_concurrency, metadata, token_hash, registered_at, seen_at)"
        " VALUES (%s, 'load', 'h', %s, %s, '{}', %s, now(), now())",
        (agent_id, CAN, slots, token_hash),
    )


def asking(most: int = 1) -> dict[str, Any]:
    """What goes into the statements for the agent `load`."""
    return claims.Asking("load", TOKEN, None, most, None, datetime.now(UTC))._asdict()


def statements(conn: psycopg.Connection[Any], most: int = 1) -> list[tuple[str, dict[str, Any]]]:
    """The statements by which the agent `load` looks for work here: those that it needs, as it comes to them."""
    near = (claims._NEAR[most > 1], asking(most))
    if len(conn.execute(*near).fetchall()) == most:
        return [near]
    rows = conn.execute("SELECT array_agg(id) FROM capsets WHERE names <@ %s::text[]", (CAN,)).fetchone()
    sets = (rows and rows[0]) or []
    far = {"sets": sets, "deep": claims.DEEP[0], "most": most, "held": []}
    return [near, *([(claims._OF_SETS["ssh_cli"], far)] if sets else [])]


def explained(conn: psycopg.Connection[Any], statement: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    """The executed plan of a statement, with the pages it touched. What it locked is let go."""
    text, given = statement
    with conn.transaction(force_rollback=True):
        conn.execute("SET LOCAL plan_cache_mode = force_generic_plan")
        row = conn.execute(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {text}", given, prepare=True).fetchone()
    assert row is not None
    plan: dict[str, Any] = row[0][0]["Plan"] if not isinstance(row[0], str) else json.loads(row[0])[0]["Plan"]
    return plan


def pages(conn: psycopg.Connection[Any], most: int = 1) -> int:
    """How many pages it takes the agent `load` to find its work."""
    found = [explained(conn, one) for one in statements(conn, most)]
    return sum(int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]) for plan in found)
