"""Reports code that nothing uses, as vulture finds it, without the names by which frameworks call ours."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import vulture
from vulture.core import Item

TOP = Path(__file__).parents[1]
CODE = ("app", "workers", "bench", "deploy", "tools")
TESTS = "tests"
SETTINGS = ("deploy/",)  # its names are read by gunicorn
FOR_TESTS = ("app/cli/demo/forge/",)  # the demo uses a part of it, tests use all
# They register what they decorate: a route, a command, a task, a signal, a hook of marshmallow or SQLAlchemy.
REGISTERED = [
    "@*.route", "@*.get", "@*.post", "@*.put", "@*.patch", "@*.delete", "@*.command*", "@*.group*", "@*.task*",
    "@*.errorhandler", "@*.before_request", "@*.connect", "@*.listens_for", "@validates*", "@pre_load", "@post_load",
]  # fmt: skip
# Names that a framework looks for, each with the framework.
CALLED = [
    "Meta",  # marshmallow
    "list_commands", "get_command", "format_commands",  # click
    "missing_host_key",  # paramiko
    "create_app", "request_class", "merge_slashes", "strict_slashes", "DEFAULT_VALIDATION_STATUS", "ARGUMENTS_PARSER",
    "ERROR_SCHEMA", "_raw_load_json",  # gunicorn, Flask
    "QuietScheduler", "adjust",  # Celery's beat
    "Token",  # in annotations that are strings
    "trouble",  # part of the progress that becomes JSON
    "is_writing",  # a state that tests wait for
    "run_wsgi", "sort_keys",  # werkzeug, Flask
]  # fmt: skip


def main() -> int:
    found = [item for item in unused(CODE) if not str(item.filename).startswith((*FOR_TESTS, *SETTINGS))]
    found += [item for item in unused((*CODE, TESTS)) if str(item.filename).startswith(FOR_TESTS)]
    for item in found:
        print(f"{item.filename}:{item.first_lineno}: nothing uses {item.typ} {item.name}")
    return bool(found)


def unused(folders: Sequence[str]) -> Iterator[Item]:
    search = vulture.Vulture(ignore_names=CALLED, ignore_decorators=REGISTERED)
    search.scavenge([str(TOP / folder) for folder in folders], exclude=["*/migrations/versions/*"])
    for item in search.get_unused_code(min_confidence=60):
        if not is_field(item):
            item.filename = item.filename.relative_to(TOP)
            yield item


def is_field(item: Item) -> bool:
    """Whether it is a field of a schema, a dataclass or an enum, which is read by its name at run time."""
    line = item.filename.read_text().splitlines()[item.first_lineno - 1]
    return bool(item.typ == "variable" and line.startswith(" "))


if __name__ == "__main__":
    sys.exit(main())
