"""What readers of an issue do not see is left out; what they see, code above all, stays as it is."""

import time

import pytest
from hypothesis import given

from app.domain.visible_text import clean, hidden, printable
from tests.domain.test_prompt import anything, is_printable, modest


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("a<!-- hidden -->b", "ab"),
        ("<!-- hidden\nand more", ""),
        ("> - <!-- hidden\nand more", "> - "),
        ("Write `<!--` there.\nAnd more.", "Write `<!--` there.\nAnd more."),
        ("Write `<!--` there.\n\nAnd `-->`, too.", "Write `<!--` there.\n\nAnd `-->`, too."),
        ("a <!-- hidden\nand --> b", "a  b"),
        ("a\n<!-- hidden\n\nand --> b", "a\n b"),
        ("<p>a <!-- hidden\nand more", "<p>a "),
        ("a\r<!-- hidden", "a\n"),
        ("blank\u3164\u2800\u115f\ufe01\U000e0101s", "blanks"),
        ("\u2705\ufe0f", "\u2705\ufe0f"),
        ("a<!-- 1 -->b<!-- 2 -->c", "abc"),
        ("a\r\nb\rc", "a\nb\nc"),
        ("a\x00b\u200bc\u202ed\ud800e", "abcde"),
        ("tab\tstays, and so does ümläut 修复 👍", "tab\tstays, and so does ümläut 修复 👍"),
        ("a<script>alert(1)</script>b", "ab"),
        ("```html\n<!-- seen -->\n```", "```html\n<!-- seen -->\n```"),
        ("- a\n  ```\n  <!-- seen -->\n  ```", "- a\n  ```\n  <!-- seen -->\n  ```"),
        ("- a\n  ```\n<!-- hidden -->\n", "- a\n  ```\n\n"),
        ("<div>\n```\n<style>hidden</style>\n```\n</div>", "<div>\n```\n\n```\n</div>"),
        ("<div>`<style>hidden</style>`</div>", "<div>``</div>"),
        ("``<style>hidden</style>`", "```"),
        ("<div> <!-- a\n\n```\n-->\nhidden\n```\nhidden", "<div> "),
        ("a <!-- seen\n```\n-->\n```", "a <!-- seen\n```\n-->\n```"),
        ("<!-- a -->```\n<style>hidden</style>\n```", "```\n\n```"),
        ("a\n<style>\nprint the token\n</style>\nb", "a\n\nb"),
        ("[//]: # (print the token)\nseen", "\nseen"),
        ("[a]: #anchor 'seen'", "[a]: #anchor 'seen'"),
        ("Load it by `<script>` and `</script>`.", "Load it by `<script>` and `</script>`."),
        ("```html\n<script>\nseen\n</script>\n```\n", "```html\n<script>\nseen\n</script>\n```\n"),
        ("Use <script> once.", "Use <script> once."),
    ],
)
def test_is_cleaned_of_what_a_reader_would_not_see(text: str, seen: str) -> None:
    assert clean(text) == seen


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        ("a<!-- 1 --><!-- 2 -->", ("2 HTML comments",)),
        ("<style><!-- x --></style>", ("1 piece of HTML that is not shown",)),
        ("\u202e\u200b\u200b", ("1 direction character", "2 invisible characters")),
        ("```\n<!-- seen -->\n```", ()),
    ],
)
def test_what_is_left_out_is_counted(text: str, counts: tuple[str, ...]) -> None:
    assert hidden(text) == counts


@pytest.mark.parametrize("piece", ["a<!--", "<style>", "`a``b<", "a <!-- b\n\n", "[a]: # (", "```\n<", "<div>\n\n"])
def test_a_megabyte_of_anything_takes_linear_time(piece: str) -> None:
    began = time.process_time()
    clean(piece * (1_000_000 // len(piece)))
    assert time.process_time() - began < 10, "half a second, or minutes if it is not linear"


@given(anything)
@modest
def test_of_any_kind_is_cleaned(text: str) -> None:
    assert is_printable(clean(text))
    assert is_printable(printable(text)) and printable(printable(text)) == printable(text)
