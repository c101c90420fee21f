"""Checks the names in fleet.toml: forges, CLIs, presets, placeholders, versions and models must exist."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from app.clis.catalog import preset, presets
from app.clis.template import Table

PLACEHOLDERS = ("workdir", "run", "home", "task", "prompt_file", "flags")
MORE_PLACEHOLDERS = {"resume": ("session_id",), "model_flag": ("model",)}
_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")
_SPACE = re.compile(r"\s")
_VERSION = re.compile(r"\d+(\.\d+)+")


def faults(declared: Table) -> list[str]:
    """A sentence for each unknown name, with the known ones. `declared` may lack tables that have other faults."""
    known = sorted({*presets(), *declared["clis"]})
    unknown = [
        f"{who} {what} {name!r}, which does not exist; known are: {', '.join(there) or 'none'}"
        for who, what, name, there in _references(declared, known)
        if name not in there
    ]
    return unknown + [fault for entry in _entries(declared) for fault in entry.faults()]


def _references(declared: Table, known: list[str]) -> Iterator[tuple[str, str, str, list[str]]]:
    """(who refers, how, to which name, the known names) for each reference."""
    for name, cli in declared["clis"].items():
        if cli.get("preset"):
            yield f"clis: {name!r}", "begins with the preset", cli["preset"], presets()
        for other in cli.get("failover") or ():
            yield f"clis: {name!r}", "fails over to the CLI", other, known
    for rule in declared["repositories"]:
        if "forge" in rule:
            yield _rule(rule), "names the forge", rule["forge"], sorted(declared["forges"])
        if rule.get("cli"):
            yield _rule(rule), "names the CLI", rule["cli"], known
    for host in declared["hosts"]:
        for name in (slots["agent_type"] for slots in host.get("agents", ()) if "agent_type" in slots):
            yield _host(host), "has slots for the CLI", name, known
    for who, table in _overrides(declared):
        for name in table:
            yield who, "overrides the CLI", name, known


def _overrides(declared: Table) -> Iterator[tuple[str, Table]]:
    """(who overrides CLIs, the overrides by the name of the CLI)."""
    for rule in declared["repositories"]:
        yield _rule(rule), rule.get("clis", {})
    for host in declared["hosts"]:
        yield _host(host), host.get("clis", {})


def _rule(rule: Table) -> str:
    return f"repositories: {rule.get('name', 'one')}"


def _host(host: Table) -> str:
    return f"hosts: {host.get('host_id', 'one')}"


@dataclass(frozen=True)
class _Entry:
    """The table of a CLI or of an override, and the keys of its preset and declaration merged."""

    who: str
    table: Table
    merged: Table
    is_override: bool = False

    def faults(self) -> list[str]:
        return [f"{self.who} {fault}" for fault in (*self._placeholders(), *self._versions(), *self._model())]

    def _placeholders(self) -> Iterator[str]:
        for key, words in self._words():
            known = sorted({*PLACEHOLDERS, *MORE_PLACEHOLDERS.get(key, ())})
            single = [word for word in words if not _SPACE.search(word)]  # with a space it is a program's text
            for name in dict.fromkeys(name for word in single for name in _PLACEHOLDER.findall(word)):
                if name not in known:
                    there = ", ".join(f"{{{one}}}" for one in known)
                    yield f"has {{{name}}} in {key}, which is not a placeholder there; use {there}"

    def _words(self) -> Iterator[tuple[str, Iterable[str]]]:
        """(key, words) of each key in which placeholders are filled in."""
        for key in ("argv", "resume", "model_flag"):
            yield key, self.table.get(key) or ()
        yield "flags", [word for flags in self.table.get("flags") or () for word in flags.get("argv", ())]
        yield "env", (self.table.get("env") or {}).values()

    def _versions(self) -> Iterator[str]:
        asked = [flags[key] for flags in self.table.get("flags") or () for key in ("since", "until") if flags.get(key)]
        for version in asked:
            if not _VERSION.search(version):
                yield f"has flags for the version {version!r}, which is not a version number like 2.1"
        if asked and not self.merged.get("version"):
            yield f"has flags for the version {asked[0]!r}, but no `version` command to find the installed version"

    def _model(self) -> Iterator[str]:
        others = {"argv", "resume", "flags", "env"} & self.table.keys()
        if self.is_override and self.table.get("model") and not (self.merged.get("model_flag") or others):
            yield f"names the model {self.table['model']!r}, but no `model_flag` to pass it to the CLI"


def _entries(declared: Table) -> Iterator[_Entry]:
    for name, cli in declared["clis"].items():
        yield _Entry(f"clis: {name!r}", cli, _merged(name, declared))
    for who, overrides in _overrides(declared):
        for name, table in overrides.items():
            yield _Entry(f"{who}: its {name!r}", table, _merged(name, declared), is_override=True)


def _merged(name: str, declared: Table) -> Table:
    """The keys of a CLI's preset and declaration."""
    cli = declared["clis"].get(name, {})
    base = {} if cli.get("argv") else preset(cli.get("preset") or name) or {}
    return {**base, **cli}
