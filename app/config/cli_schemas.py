"""What fleet.toml may say of CLIs, of what they may cost and of how their work is committed."""

import re
from collections.abc import Mapping
from typing import Any

from marshmallow import RAISE, Schema, ValidationError, fields, post_load, validate, validates_schema

from app.clis.pricing import limits_dollars, missing_price, price_of

PARSERS = ("codex-jsonl", "claude-result", "json-path", "raw")
CLI_NAME = validate.Regexp(r"^[A-Za-z0-9_.-]{1,100}$", error="must be of letters, digits, '.', '_' and '-'")
WITH_ARGV = {"prompt": "stdin", "parser": "raw", "timeout_secs": 3600, "silence_secs": 600}
LONGEST_CHAIN = 5

_WORD = validate.Regexp(r"^[^\x00]*$", error="must not hold a NUL")
_TRAILER = validate.Regexp(r"^[A-Za-z0-9-]+: [^\x00-\x1f]+$", error="must look like Name: value")
_ONE_LINE = validate.Regexp(r"^[^\x00-\x1f]+$", error="must be one line")


class _Strict(Schema):
    class Meta:
        unknown = RAISE


def _words() -> Any:
    return fields.List(fields.String(validate=_WORD), validate=validate.Length(1))


def _seconds() -> fields.Integer:
    return fields.Integer(strict=True, validate=validate.Range(1, 7 * 86400))


class FlagsSchema(_Strict):
    since = fields.String()
    until = fields.String()
    argv = fields.List(fields.String(validate=_WORD), required=True)


class OverrideSchema(_Strict):
    """What a repository or a host may change about a CLI."""

    argv = _words()
    resume = _words()
    flags = fields.List(fields.Nested(FlagsSchema))
    env = fields.Dict(keys=fields.String(), values=fields.String(validate=_WORD))
    model = fields.String(validate=_ONE_LINE)
    apart = fields.Boolean(truthy={True}, falsy={False})
    checks_apart = fields.Boolean(truthy={True}, falsy={False})
    timeout_secs = _seconds()
    silence_secs = _seconds()


def _is_pattern(text: str) -> None:
    try:
        groups = re.compile(text).groups
    except re.error as why:
        raise ValidationError(f"is no regular expression: {why}") from None
    if groups != 1:
        raise ValidationError("must have one group, the session")


class SessionFileSchema(_Strict):
    """Where a CLI notes what it does not print: how it names its session, the file, and what marks the line."""

    named = fields.String(required=True, validate=_is_pattern)
    path = fields.String(required=True, validate=_WORD)
    line = fields.String(required=True, validate=_WORD)


class CliSchema(OverrideSchema):
    """A CLI of one's own: an argv, or a preset with changes."""

    preset = fields.String(validate=CLI_NAME)
    prompt = fields.String(validate=validate.OneOf(["stdin", "file"]))
    parser = fields.String(validate=validate.OneOf(PARSERS))
    reading = fields.Dict(keys=fields.String())
    version = _words()
    final = fields.List(fields.String())
    session_file = fields.Nested(SessionFileSchema)
    model_flag = _words()
    credential = fields.String(validate=CLI_NAME)
    failover = fields.List(fields.String(validate=CLI_NAME), validate=validate.Length(max=LONGEST_CHAIN))
    reports_cost = fields.Boolean()

    @validates_schema(skip_on_field_errors=False, pass_original=True)
    def _knows_what_to_run(self, _: Mapping[str, Any], given: Mapping[str, Any], **__: Any) -> None:
        if isinstance(given, Mapping) and "argv" not in given and not given.get("preset"):
            raise ValidationError("Missing data for required field: name an argv, or a preset.", "argv")

    @post_load
    def _whole(self, given: dict[str, Any], **_: Any) -> dict[str, Any]:
        return (WITH_ARGV if not given.get("preset") else {}) | given


class AmountSchema(_Strict):
    """How much may be used; what is not named is not bounded."""

    tokens = fields.Integer(strict=True, validate=validate.Range(1))
    dollars = fields.Float(validate=validate.Range(0, min_inclusive=False))
    minutes = fields.Float(validate=validate.Range(0, min_inclusive=False))


class BudgetSchema(_Strict):
    """For each run, each task, the repository in all, and the repository on one day (UTC)."""

    run = fields.Nested(AmountSchema)
    task = fields.Nested(AmountSchema)
    repository = fields.Nested(AmountSchema)
    day = fields.Nested(AmountSchema)


class CommitSchema(_Strict):
    """Who commits what a CLI left, and what each such message ends with."""

    author_name = fields.String(validate=_ONE_LINE)
    author_email = fields.String(validate=validate.Regexp(r"^[^\x00-\x20<>]+$", error="must be an address"))
    trailers = fields.List(fields.String(validate=_TRAILER))


def _commands() -> Any:
    return fields.List(fields.String(validate=[validate.Length(1, 2000), _WORD]), validate=validate.Length(max=10))


class HooksSchema(_Strict):
    """Commands of the repository around the steps of a run, by `sh -c`, without any credential: in its worktree, or in
    the run's folder before there is one."""

    error_messages = {  # noqa: RUF012 - so it stands in Schema
        "unknown": "is no moment of a run: there are before_ and after_ prepare, agent, validate, deliver"
    }

    before_prepare = _commands()
    after_prepare = _commands()
    before_agent = _commands()
    after_agent = _commands()
    before_validate = _commands()
    after_validate = _commands()
    before_deliver = _commands()
    after_deliver = _commands()


class PriceSchema(_Strict):
    """Dollars for a million tokens."""

    input = fields.Float(required=True, validate=validate.Range(0))
    cached = fields.Float(validate=validate.Range(0))
    output = fields.Float(required=True, validate=validate.Range(0))
    as_of = fields.Raw()


def clis_field() -> fields.Dict:
    """`clis` of a repository or a host: changes by the name of the CLI."""
    return fields.Dict(keys=fields.String(validate=CLI_NAME), values=fields.Nested(OverrideSchema), load_default=dict)


def price_the_clis(declared: Mapping[str, Any]) -> None:
    """Give each CLI that names a model the model's price, and so each change of one by a repository or a host:
    fleet.toml's, else the dated table's. Where none is known, an empty one takes the place of the other model's."""
    changes = [cli for place in (*declared["repositories"], *declared["hosts"]) for cli in place["clis"].values()]
    for cli in (*declared["clis"].values(), *changes):
        if cli.get("model"):
            cli["price"] = price_of(cli["model"], declared["prices"])


def faults(declared: Mapping[str, Any]) -> list[str]:
    """What cannot hold: a cap in dollars on a CLI whose dollars nobody knows, a chain that leads back to itself."""
    return [
        f"repositories: {rule['name']} {fault}"
        for rule in declared["repositories"]
        if limits_dollars(rule["budget"])
        for cli in sorted(_clis_of(rule, declared))
        for fault in _unpriced(cli, rule, declared)
    ] + [
        f"clis: the failover of {name!r} names {name!r} itself"
        for name, cli in declared["clis"].items()
        if name in (cli.get("failover") or [])
    ]


def _unpriced(cli: str, rule: Mapping[str, Any], declared: Mapping[str, Any]) -> list[str]:
    """Why the rule's dollars cannot be kept with a CLI, on each host that may run it, each reason once."""
    said = (declared["clis"].get(cli), rule["clis"].get(cli))
    hosts = [host for host in declared["hosts"] if cli in {slots["agent_type"] for slots in host["agents"]}]
    changes = [host["clis"].get(cli) for host in hosts] or [None]
    return list(dict.fromkeys(why for change in changes if (why := missing_price(cli, *said, change))))


def _clis_of(rule: Mapping[str, Any], declared: Mapping[str, Any]) -> set[str]:
    """Every CLI that may work for a repository: its own or all there are, and all that may take over for these."""
    slots = {slots["agent_type"] for host in declared["hosts"] for slots in host["agents"]}
    found, new = set[str](), {rule["cli"]} if rule["cli"] else slots or set(declared["clis"])
    while new:
        found |= new
        new = {other for name in new for other in declared["clis"].get(name, {}).get("failover") or []} - found
    return found
