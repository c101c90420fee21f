"""Commands: at the start of a line, outside code and quotations, in any case."""

import pytest

from app.domain.comment_command import Command, parse_command


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("/retry", Command("retry")),
        ("  /retry", None),
        ("/RETRY  ", Command("retry")),
        ("Thanks!\r\n/cancel\r\n", Command("cancel")),
        ("/assign  worker-01 ", Command("assign", "worker-01")),
        ("/retry please", Command("retry", "please")),
        ("/help\n/cancel", Command("help")),
        ("see /retry", None),
        ("> /retry", None),
        ("`/retry`", None),
        ("/retrying", None),
        ("/deploy", None),
        ("```\n/cancel\n```", None),
        ("```\n/cancel\n```\n/retry", Command("retry")),
        ("~~~sh\n/cancel\n", None),
        ("Fine.\n<!--\n/cancel\n-->", None),
        ("", None),
    ],
)
def test_a_command_is_what_stands_alone_at_the_start_of_a_line(text: str, said: Command | None) -> None:
    assert parse_command(text) == said


def test_what_follows_the_verb_is_cut() -> None:
    assert len((parse_command("/assign " + "x" * 10_000) or Command("")).argument) == 100
