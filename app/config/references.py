"""Which names in fleet.toml lead nowhere: forges, CLIs, presets, placeholders, versions and models."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from app.clis.catalog import preset, presets
from app.clis.template import Table

PLACES = ("workdir", "run", "home", "task", "prompt_file", "flags")
KNOWS_MORE = {"resume": ("session_id",), "model_flag": ("model",)}
_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")
_SPACE = re.compile(r"\s")
_VERSION = re.compile(r"\d+(\.\d+)+")


def faults(declared: Table) -> list[str]:
    """A sentence for each name that leads nowhere, with those that there are. What is wrong in other ways may be
    missing from what is declared."""
    known = sorted({*presets(), *declared["clis"]})
    nowhere = [
        f"{who} {what} {name!r}, and there is none of that name: there are {', '.join(there) or 'none at all'}"
        for who, what, name, there in _named(declared, known)
        if name not in there
    ]
    return nowhere + [fault for saying in _sayings(declared) for fault in saying.faults()]


def _named(declared: Table, known: list[str]) -> Iterator[tuple[str, str, str, list[str]]]:
    """Who names what by which name, and the names that there are."""
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
    for who, table in _changes(declared):
        for name in table:
            yield who, "changes the CLI", name, known


def _changes(declared: Table) -> Iterator[tuple[str, Table]]:
    """Who changes CLIs, and how."""
    for rule in declared["repositories"]:
        yield _rule(rule), rule.get("clis", {})
    for host in declared["hosts"]:
        yield _host(host), host.get("clis", {})


def _rule(rule: Table) -> str:
    return f"repositories: {rule.get('name', 'one')}"


def _host(host: Table) -> str:
    return f"hosts: {host.get('host_id', 'one')}"


@dataclass(frozen=True)
class _Saying:
    """What somebody says of a CLI, and all that is said of it by preset and declaration."""

    who: str
    said: Table
    whole: Table
    changes: bool = False

    def faults(self) -> list[str]:
        return [f"{self.who} {fault}" for fault in (*self._placeholders(), *self._versions(), *self._model())]

    def _placeholders(self) -> Iterator[str]:
        for key, words in self._words():
            known = sorted({*PLACES, *KNOWS_MORE.get(key, ())})
            single = [word for word in words if not _SPACE.search(word)]  # else a program's text
            for name in dict.fromkeys(name for word in single for name in _PLACEHOLDER.findall(word)):
                if name not in known:
                    there = ", ".join(f"{{{one}}}" for one in known)
                    yield f"has {{{name}}} in {key}, which stands for nothing there: there are {there}"

    def _words(self) -> Iterator[tuple[str, Iterable[str]]]:
        """Everything in which placeholders are filled in."""
        for key in ("argv", "resume", "model_flag"):
            yield key, self.said.get(key) or ()
        yield "flags", [word for flags in self.said.get("flags") or () for word in flags.get("argv", ())]
        yield "env", (self.said.get("env") or {}).values()

    def _versions(self) -> Iterator[str]:
        asked = [flags[key] for flags in self.said.get("flags") or () for key in ("since", "until") if flags.get(key)]
        for version in asked:
            if not _VERSION.search(version):
                yield f"has flags for the version {version!r}, which is no number like 2.1"
        if asked and not self.whole.get("version"):
            yield f"has flags for the version {asked[0]!r}, and no `version` says how the CLI is asked for its own"

    def _model(self) -> Iterator[str]:
        others = {"argv", "resume", "flags", "env"} & self.said.keys()
        if self.changes and self.said.get("model") and not (self.whole.get("model_flag") or others):
            yield f"names the model {self.said['model']!r}, and no `model_flag` says how the CLI is told of it"


def _sayings(declared: Table) -> Iterator[_Saying]:
    for name, cli in declared["clis"].items():
        yield _Saying(f"clis: {name!r}", cli, _whole(name, declared))
    for who, table in _changes(declared):
        for name, change in table.items():
            yield _Saying(f"{who}: its {name!r}", change, _whole(name, declared), changes=True)


def _whole(name: str, declared: Table) -> Table:
    """What preset and declaration say of a CLI."""
    cli = declared["clis"].get(name, {})
    base = {} if cli.get("argv") else preset(cli.get("preset") or name) or {}
    return {**base, **cli}
