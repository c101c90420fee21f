"""Describes how to run one CLI: the merged keys of its cli.toml, of fleet.toml and of the overrides."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

Table = Mapping[str, Any]  # a table of cli.toml or fleet.toml
_MERGED = ("env",)  # a later table adds to these keys and replaces every other key


@dataclass(frozen=True)
class CliTemplate:
    """Each field is a key of cli.toml and of `[clis.NAME]`; docs/clis.md describes them.

    `price` (dollars per million tokens of `model`) and `prices` (by model) are fleet.toml's own.
    """

    argv: Sequence[str] = ()
    resume: Sequence[str] | None = None  # None: this CLI cannot resume a session
    prompt: str = "stdin"  # or "file"
    parser: str = "raw"
    reading: Table = field(default_factory=dict)  # settings of the parser
    version: Sequence[str] = ()  # the command that prints the CLI's version
    flags: Sequence[Table] = ()  # each {argv, since?, until?}
    env: Mapping[str, str] = field(default_factory=dict)
    model: str | None = None
    model_flag: Sequence[str] = ()
    final: Sequence[str] = ()  # types of the JSON lines that end the output
    session_file: Table | None = None  # {named, path, line}
    apart: bool = True
    checks_apart: bool = False
    timeout_secs: int | None = None
    silence_secs: int = 600
    credential: str | None = None
    failover: Sequence[str] = ()
    reports_cost: bool = False
    price: Table = field(default_factory=dict)
    prices: Mapping[str, Table] = field(default_factory=dict)

    @property
    def version_command(self) -> list[str]:
        """The command that prints the CLI's version; `PROGRAM --version` if none is declared."""
        return list(self.version or [self.argv[0], "--version"])


def merge(*tables: Table | None) -> CliTemplate:
    """A template of tables, the later before the earlier. Unknown keys and None are ignored."""
    merged: dict[str, Any] = {}
    for table in tables:
        given = {name: value for name, value in (table or {}).items() if name in _FIELDS and value is not None}
        added = {name: {**merged.get(name, {}), **given[name]} for name in _MERGED if name in given}
        merged |= given | added
    return CliTemplate(**merged)


_FIELDS = frozenset(field_.name for field_ in fields(CliTemplate))
