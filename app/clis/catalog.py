"""Finds CLIs and parsers: a CLI is a folder here with a cli.toml, a parser one with a parser.py. No central list."""

import importlib
import tomllib
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from types import ModuleType

from app.clis.parser import Parser, Setting
from app.clis.template import CliTemplate, Table, merge
from app.domain.errors import Kind, Refused

FOLDER = Path(__file__).parent


def template_of(cli: str, declared: Table | None = None, overrides: Iterable[Table | None] = ()) -> CliTemplate:
    """How to run a CLI: the preset, then the keys of `[clis.NAME]`, then each override (repository, host).

    The preset is the one that `declared` names, else the one with the CLI's name. A declared argv needs no preset.
    Raises Refused if there is no such CLI.
    """
    declared = declared or {}
    base = {} if declared.get("argv") else preset(declared.get("preset") or cli)
    if base is None:
        raise Refused(
            Kind.UNKNOWN,
            f"No CLI is named {cli!r}: declare [clis.{cli}] in fleet.toml, or use one of {', '.join(presets())}.",
        )
    return merge(base, declared, *overrides)


def presets() -> list[str]:
    return sorted(path.parent.name for path in FOLDER.glob("*/cli.toml"))


@cache
def preset(name: str) -> Table | None:
    """The keys of NAME/cli.toml, or None if there is no such file."""
    path = FOLDER / name / "cli.toml"
    return tomllib.loads(path.read_text()) if name.replace("-", "").isalnum() and path.is_file() else None


def make_parser(name: str, setting: Setting) -> Parser:
    """A parser for one run. An unknown name gives the raw parser."""
    module = parsers().get(name) or parsers()["raw"]
    found: Parser = module.OutputParser(setting)
    return found


@cache
def parsers() -> Mapping[str, ModuleType]:
    """Every parser's module, by the NAME in it."""
    modules = [importlib.import_module(f"app.clis.{path.parent.name}.parser") for path in FOLDER.glob("*/parser.py")]
    return {module.NAME: module for module in modules}
