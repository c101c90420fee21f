"""Describes a CLI's call in a `start` request, and reads the outcome of its whole output."""

from dataclasses import replace

from app.clis import catalog
from app.clis.command_line import fill_template
from app.clis.outcomes import sanitize
from app.clis.parser import Setting
from app.clis.pricing import add_cost
from app.clis.template import CliTemplate
from app.domain.run import Outcome, Usage
from workers.supervisor_messages import CliCall

HEARTBEAT_SECS = 5  # between two heartbeats of a supervisor
GRACE_SECS = 10  # between TERM and KILL


def describe_call(
    template: CliTemplate, prompt: str, session: str | None, timeout_secs: int, log_limit_mb: int
) -> CliCall:
    """How to call the CLI, on a session or a fresh one, and its limits.

    `log_limit_mb` is the most that is kept of each log; the middle is dropped.
    """
    return {
        "agent": {**fill_template(template, session), "prompt": prompt},
        "limits": {
            "wall_secs": min(timeout_secs, template.timeout_secs or timeout_secs),
            "silence_secs": template.silence_secs,
            "grace_secs": GRACE_SECS,
            "log_head_bytes": log_limit_mb << 19,
            "log_tail_bytes": log_limit_mb << 19,
        },
        "heartbeat_secs": HEARTBEAT_SECS,
    }


def read_outcome(
    template: CliTemplate,
    stdout: bytes,
    exit_code: int | None,
    session: str | None = None,
    before: Usage | None = None,
    session_notes: object = None,
) -> Outcome:
    """The outcome of a CLI's whole output.

    `before` is what the `session` had used before this run; `session_notes` what the CLI wrote to its session file.
    """
    setting = Setting(before=before or Usage(), session=session, reading=template.reading)
    parser = catalog.make_parser(template.parser, setting)
    parser.feed(stdout)
    parser.feed_session_line(session_notes)
    outcome = sanitize(parser.finish(exit_code))
    usage, source = add_cost(outcome.usage, template, parser.progress().by_model)
    return replace(outcome, usage=usage, cost_source=outcome.cost_source or source)
