"""Prints the executed plans that docs/dequeue.md shows: `python -m bench.dequeuing.plans [WAITING ...]`."""

import sys

from bench.dequeuing.servers import Stand, stand
from tests import backlog

SETS = 50


def main() -> None:
    with stand() as set_:
        for waiting in [int(word) for word in sys.argv[1:]] or [1_000, 1_000_000]:
            set_.fill(waiting, SETS, texts=10_000)
            for case in backlog.CASES:
                print(f"\n### {case}, {waiting:,} waiting, {SETS} sets\n")
                for statement in backlog.statements(set_.conn, case, SETS):
                    _explain(set_, *statement)


def _explain(set_: Stand, text: str, given: dict[str, object]) -> None:
    with set_.conn.transaction(force_rollback=True):
        set_.conn.execute("SET LOCAL plan_cache_mode = force_generic_plan")
        for _ in range(3):
            rows = set_.conn.execute(f"EXPLAIN (ANALYZE, BUFFERS, COSTS OFF) {text}", given, prepare=True).fetchall()
    print("\n".join(row[0] for row in rows))


if __name__ == "__main__":
    main()
