"""Checks that secrets are masked in text, bytes and nested JSON."""

from hypothesis import given, settings
from hypothesis import strategies as st

from app.domain.masking import MASK, SHORTEST, Mask

SECRET = "s3cret-token"
mask = Mask([SECRET, "s3cret-token-and-more", "short", "", None, "größer-als"])
around = st.text(alphabet="ab -\n" + SECRET, max_size=30)


def test_a_secret_is_starred_out_wherever_it_stands() -> None:
    assert mask.text(f"url=https://fleet:{SECRET}@forge/ {SECRET}") == f"url=https://fleet:{MASK}@forge/ {MASK}"


def test_a_secret_within_a_longer_one_leaves_nothing_of_either() -> None:
    assert mask.text("s3cret-token-and-more") == MASK


def test_a_word_too_short_to_be_a_secret_stays() -> None:
    assert mask.text("short") == "short" and len("short") < SHORTEST


def test_nothing_secret_changes_nothing() -> None:
    assert Mask().text("as it was") == "as it was"


def test_bytes_keep_their_length() -> None:
    raw = f"a {SECRET} größer-als z".encode()
    assert mask.bytes(raw) == b"a " + b"*" * 12 + b" " + b"*" * 12 + b" z"


def test_bytes_that_are_no_text_stay_as_they_are() -> None:
    assert mask.bytes(b"\xff\xfe " + SECRET.encode()) == b"\xff\xfe " + b"*" * 12


def test_nested_json_is_masked_in_every_corner() -> None:
    given_ = {"a": [SECRET, {"b": (SECRET, 1)}], "c": None, "d": True, "e": 1.5}
    assert mask.json(given_) == {"a": [MASK, {"b": [MASK, 1]}], "c": None, "d": True, "e": 1.5}


@given(around, around)
@settings(max_examples=100, deadline=None, database=None)
def test_whatever_stands_around_it_a_secret_is_gone(before: str, after: str) -> None:
    text = f"{before}{SECRET}{after}"
    assert SECRET not in mask.text(text)
    masked = mask.bytes(text.encode())
    assert SECRET.encode() not in masked and len(masked) == len(text.encode())


def test_what_may_be_the_beginning_of_a_secret_is_counted() -> None:
    assert mask.cut(b"nothing of it") == 0
    assert mask.cut(b"token: s3cret-to") == 9
    assert mask.cut(b"s3cret-token-and") == 16
    assert mask.cut(b"s") == 1


@given(around, around, st.integers(0, 40))
@settings(max_examples=100, deadline=None, database=None)
def test_a_secret_cut_in_two_anywhere_does_not_show(before: str, after: str, at: int) -> None:
    whole, shown, left = f"{before}{SECRET}{after}".encode(), b"", b""
    for piece in (whole[:at], whole[at:]):
        data = left + piece
        held = mask.cut(data)
        masked = mask.bytes(data)
        shown, left = shown + masked[: len(data) - held], data[len(data) - held :]
    assert shown + mask.bytes(left) == mask.bytes(whole)
