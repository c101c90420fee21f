"""The CLIs and parsers there are: a folder with a cli.toml, one with a parser.py. No central list."""

import importlib
import tomllib
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from app.clis.parser import Parser, Setting
from app.domain.errors import Kind, Refused

__all__ = ["DEFAULTS", "Template", "make_parser", "parsers", "preset", "presets", "template_of"]
Template = Mapping[str, Any]
DEFAULTS: Template = {"prompt": "stdin", "parser": "raw", "silence_secs": 600}
JOINED = ("env",)  # what an override adds to, where it replaces the rest


@cache
def parsers() -> Mapping[str, Any]:
    """Every parser's module by the name it gives itself."""
    modules = [importlib.import_module(f"app.clis.{path.parent.name}.parser") for path in FOLDER.glob("*/parser.py")]
    return {module.NAME: module for module in modules}


def template_of(cli: str, declared: Template | None = None, overrides: Iterable[Template | None] = ()) -> Template:
    """How to run a CLI: as fleet.toml declares it, on top of the preset it names; else the preset of that name. Each
    override (the repository's, the host's) replaces what it says. Raises Refused where nobody knows the CLI."""
    base = preset((declared or {}).get("preset") or cli) if not (declared or {}).get("argv") else {}
    if base is None:
        raise Refused(
            Kind.UNKNOWN,
            f"No CLI is named {cli!r}: declare [clis.{cli}] in fleet.toml, or use one of {', '.join(presets())}.",
        )
    template: Template = {**DEFAULTS, **base}
    for more in (declared, *overrides):
        template = _over(template, more or {})
    return template


def make_parser(parser: str, setting: Setting) -> Parser:
    """A parser for one run. One that nobody knows is read raw."""
    module = parsers().get(parser) or parsers()["raw"]
    found: Parser = module.OutputParser(setting)
    return found


def _over(template: Template, more: Template) -> Template:
    told = {name: value for name, value in more.items() if value is not None}
    tables = {name: {**template.get(name, {}), **told.get(name, {})} for name in JOINED}
    return {**template, **told, **tables}


FOLDER = Path(__file__).parent  # a folder for each CLI; no central list


Table = Mapping[str, Any]


def presets() -> list[str]:
    return sorted(path.parent.name for path in FOLDER.glob("*/cli.toml"))


@cache
def preset(name: str) -> Table | None:
    path = FOLDER / name / "cli.toml"
    return tomllib.loads(path.read_text()) if name.replace("-", "").isalnum() and path.is_file() else None
