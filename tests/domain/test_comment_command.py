"""Commands are parsed at the start of a line, outside code and quotations, in upper or lower case."""

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
        ("- Try:\n  ```\n/cancel", Command("cancel")),
        ("/retry x" + " " * 100_000 + "y", Command("retry", "x" + " " * 99)),
        ("Fine.\n<!--\n/cancel\n-->", None),
        ("", None),
    ],
)
def test_a_command_is_a_line_that_begins_with_its_verb(text: str, said: Command | None) -> None:
    assert parse_command(text) == said


def test_a_long_argument_is_cut() -> None:
    assert len((parse_command("/assign " + "x" * 10_000) or Command("")).argument) == 100
