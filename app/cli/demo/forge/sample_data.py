"""Adds sample data: users alice, reviewer and fleet, and acme/widgets with a bug that `make test` finds."""

from __future__ import annotations

from .server import FakeForge

FILES = {
    "README.md": "# widgets\n\nCounts and prices widgets. `make test` runs the tests.\n",
    "AGENTS.md": "Run `make test` before you commit. Keep functions short.\n",
    "Makefile": "test:\n\tpython3 -m unittest -v\n\n.PHONY: test\n",
    "widgets/__init__.py": '"""Widgets, counted and priced."""\n',
    "widgets/core.py": '''"""Sums over widgets."""


def total(prices):
    """The sum of all prices."""
    result = 0
    for index in range(len(prices) - 1):
        result += prices[index]
    return result
''',
    "tests/__init__.py": "",
    "tests/test_core.py": '''"""What total() promises."""

import unittest

from widgets.core import total


class TotalTest(unittest.TestCase):
    def test_adds_every_price(self):
        self.assertEqual(total([1, 2, 3]), 6)

    def test_nothing_costs_nothing(self):
        self.assertEqual(total([]), 0)
''',
}


def add_sample_data(forge: FakeForge) -> dict[str, str]:
    """Create users and repository; return each user's token."""
    tokens = {
        "alice": forge.add_user("alice", "Alice Example"),
        "reviewer": forge.add_user("reviewer"),
        "fleet": forge.add_user("fleet", "Fleet (bot)"),
    }
    forge.add_organisation("acme", owners=["alice"])
    forge.add_repository("acme/widgets", files=FILES)
    for login in ("reviewer", "fleet"):
        forge.collaborate("acme/widgets", login, "write")
    return tokens
