"""Schemas of the tables of fleet.toml about CLIs: how to run them, budgets, prices, commits and hooks."""

import re
from collections.abc import Mapping
from typing import Any

from marshmallow import RAISE, Schema, ValidationError, fields, post_load, validate, validates_schema

from app.clis.catalog import parsers
from app.clis.pricing import limits_dollars, missing_price, price_of

CLI_NAME = validate.Regexp(r"^[A-Za-z0-9_.-]{1,100}$", error="must be of letters, digits, '.', '_' and '-'")
WITH_ARGV = {"prompt": "stdin", "parser": "raw", "timeout_secs": 3600, "silence_secs": 600}
LONGEST_CHAIN = 5

_WORD = validate.Regexp(r"^[^\x00]*$", error="must not hold a NUL")
_TRAILER = validate.Regexp(r"^[A-Za-z0-9-]+: [^\x00-\x1f]+$", error="must look like Name: value")
_ONE_LINE = validate.Regexp(r"^[^\x00-\x1f]+$", error="must be one line")


class StrictSchema(Schema):
    """Refuses unknown keys."""

    class Meta:
        unknown = RAISE


def _words() -> Any:
    return fields.List(fields.String(validate=_WORD), validate=validate.Length(1))


def _seconds() -> fields.Integer:
    return fields.Integer(strict=True, validate=validate.Range(1, 7 * 86400))


class FlagsSchema(StrictSchema):
    since = fields.String()
    until = fields.String()
    argv = fields.List(fields.String(validate=_WORD), required=True)


class OverrideSchema(StrictSchema):
    """The keys of a CLI that a repository or a host may override."""

    argv = _words()
    resume = _words()
    flags = fields.List(fields.Nested(FlagsSchema))
    env = fields.Dict(keys=fields.String(), values=fields.String(validate=_WORD))
    model = fields.String(validate=_ONE_LINE)
    apart = fields.Boolean(truthy={True}, falsy={False})
    checks_apart = fields.Boolean(truthy={True}, falsy={False})
    timeout_secs = _seconds()
    silence_secs = _seconds()


def _check_pattern(text: str) -> None:
    try:
        groups = re.compile(text).groups
    except re.error as why:
        raise ValidationError(f"is not a regular expression: {why}") from None
    if groups != 1:
        raise ValidationError("must have exactly one group: the session")


def _check_parser(name: str) -> None:
    validate.OneOf(sorted(parsers()))(name)


class SessionFileSchema(StrictSchema):
    """A file in which a CLI writes what it does not print.

    `named` finds the session in the output, `path` is the file, and `line` marks the lines to read.
    """

    named = fields.String(required=True, validate=_check_pattern)
    path = fields.String(required=True, validate=_WORD)
    line = fields.String(required=True, validate=_WORD)


class CliSchema(OverrideSchema):
    """A CLI of your own: an argv, or a preset with changes."""

    preset = fields.String(validate=CLI_NAME)
    prompt = fields.String(validate=validate.OneOf(["stdin", "file"]))
    parser = fields.String(validate=_check_parser)
    reading = fields.Dict(keys=fields.String())
    version = _words()
    final = fields.List(fields.String())
    session_file = fields.Nested(SessionFileSchema)
    model_flag = _words()
    credential = fields.String(validate=CLI_NAME)
    failover = fields.List(fields.String(validate=CLI_NAME), validate=validate.Length(max=LONGEST_CHAIN))
    reports_cost = fields.Boolean()

    @validates_schema(skip_on_field_errors=False, pass_original=True)
    def _check_command(self, _: Mapping[str, Any], given: Mapping[str, Any], **__: Any) -> None:
        if isinstance(given, Mapping) and "argv" not in given and not given.get("preset"):
            raise ValidationError("Missing data for required field: name an argv, or a preset.", "argv")

    @post_load
    def _fill_defaults(self, given: dict[str, Any], **_: Any) -> dict[str, Any]:
        return (WITH_ARGV if not given.get("preset") else {}) | given


class AmountSchema(StrictSchema):
    """An upper limit. A key that is left out has no limit."""

    tokens = fields.Integer(strict=True, validate=validate.Range(1))
    dollars = fields.Float(validate=validate.Range(0, min_inclusive=False))
    minutes = fields.Float(validate=validate.Range(0, min_inclusive=False))


class BudgetSchema(StrictSchema):
    """Limits per run, per task, for the repository in total, and for the repository per day (UTC)."""

    run = fields.Nested(AmountSchema)
    task = fields.Nested(AmountSchema)
    repository = fields.Nested(AmountSchema)
    day = fields.Nested(AmountSchema)


class CommitSchema(StrictSchema):
    """The author of the commit of uncommitted work, and the trailers of its message."""

    author_name = fields.String(validate=_ONE_LINE)
    author_email = fields.String(validate=validate.Regexp(r"^[^\x00-\x20<>]+$", error="must be an address"))
    trailers = fields.List(fields.String(validate=_TRAILER))


def _commands() -> Any:
    return fields.List(fields.String(validate=[validate.Length(1, 2000), _WORD]), validate=validate.Length(max=10))


class HooksSchema(StrictSchema):
    """Commands of the repository around the steps of a run.

    They run by `sh -c`, without credentials, in the worktree. `before_prepare` runs in the
    run's folder, since there may be no worktree yet.
    """

    error_messages = {  # noqa: RUF012 - so it stands in Schema
        "unknown": "is not a hook: use before_ or after_ with prepare, agent, validate or deliver"
    }

    before_prepare = _commands()
    after_prepare = _commands()
    before_agent = _commands()
    after_agent = _commands()
    before_validate = _commands()
    after_validate = _commands()
    before_deliver = _commands()
    after_deliver = _commands()


class PriceSchema(StrictSchema):
    """Dollars per million tokens."""

    input = fields.Float(required=True, validate=validate.Range(0))
    cached = fields.Float(validate=validate.Range(0))
    output = fields.Float(required=True, validate=validate.Range(0))
    as_of = fields.Raw()


def clis_field() -> fields.Dict:
    """`clis` of a repository or a host: overrides by the name of the CLI."""
    return fields.Dict(keys=fields.String(validate=CLI_NAME), values=fields.Nested(OverrideSchema), load_default=dict)


def price_the_clis(declared: Mapping[str, Any]) -> None:
    """Write the price of its model into each CLI and each override that names a model.

    The price is fleet.toml's, else prices.toml's. An unknown price is written as {}, so that an override does not
    inherit the price of another model.
    """
    overriding = (*declared["repositories"], *declared["hosts"])
    overrides = [cli for owner in overriding for cli in owner["clis"].values()]
    for cli in (*declared["clis"].values(), *overrides):
        if cli.get("model"):
            cli["price"] = price_of(cli["model"], declared["prices"])


def faults(declared: Mapping[str, Any]) -> list[str]:
    """Budgets in dollars for CLIs without a known price, and CLIs that fail over to themselves."""
    return [
        f"repositories: {rule['name']} {fault}"
        for rule in declared["repositories"]
        if limits_dollars(rule["budget"])
        for cli in sorted(_clis_of(rule, declared))
        for fault in _unpriced(cli, rule, declared)
    ] + [
        f"clis: {name!r} fails over to itself; remove {name!r} from its failover"
        for name, cli in declared["clis"].items()
        if name in (cli.get("failover") or [])
    ]


def _unpriced(cli: str, rule: Mapping[str, Any], declared: Mapping[str, Any]) -> list[str]:
    """Why the rule's budget in dollars cannot be kept with a CLI on the hosts that may run it; each reason once."""
    tables = (declared["clis"].get(cli), rule["clis"].get(cli))
    hosts = [host for host in declared["hosts"] if cli in {slots["agent_type"] for slots in host["agents"]}]
    changes = [host["clis"].get(cli) for host in hosts] or [None]
    return list(dict.fromkeys(why for change in changes if (why := missing_price(cli, *tables, change))))


def _clis_of(rule: Mapping[str, Any], declared: Mapping[str, Any]) -> set[str]:
    """Every CLI that may work for a repository: its own or, if it names none, all; and their failover chains."""
    slots = {slots["agent_type"] for host in declared["hosts"] for slots in host["agents"]}
    found, new = set[str](), {rule["cli"]} if rule["cli"] else slots or set(declared["clis"])
    while new:
        found |= new
        new = {other for name in new for other in declared["clis"].get(name, {}).get("failover") or []} - found
    return found
