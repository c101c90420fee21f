"""The signature of a receipt is valid as it was signed and broken by any change."""

from typing import Any

import pytest

from app.domain import receipt, receipt_signature
from app.domain.errors import Refused

KEY = "11" * 32
BODY: Any = {"task_id": "acme/widgets#12", "title": "Fix the total – ü", "usage": {"cost_usd": 0.25}}
PROOF = receipt_signature.sign(BODY, KEY)
FILE = receipt.text(PROOF).encode()


def test_a_receipt_is_whole_as_it_was_signed() -> None:
    assert receipt_signature.verify(FILE) == PROOF
    assert receipt_signature.verify(FILE.rstrip(b"\n"), receipt_signature.public_key(KEY)) == PROOF


def test_no_byte_of_it_can_be_changed() -> None:
    taken = []
    for at in range(len(FILE)):
        for bit in (1, 32):
            changed = FILE[:at] + bytes([FILE[at] ^ bit]) + FILE[at + 1 :]
            try:
                receipt_signature.verify(changed, receipt_signature.public_key(KEY))
            except Refused:
                continue
            taken.append((at, changed))
    assert taken == []


def test_no_byte_can_be_left_out_or_added() -> None:
    for at in range(len(FILE) - 1):
        with pytest.raises(Refused):
            receipt_signature.verify(FILE[:at] + FILE[at + 1 :])
    for more in (b" ", b"\n", b"{}", b"\x00"):
        with pytest.raises(Refused):
            receipt_signature.verify(FILE + more)


def test_signed_by_another_is_not_signed_by_us() -> None:
    forged = receipt.text(receipt_signature.sign(BODY, "22" * 32))
    assert receipt_signature.verify(forged.encode())["task_id"] == "acme/widgets#12"
    with pytest.raises(Refused, match="another key"):
        receipt_signature.verify(forged.encode(), receipt_signature.public_key(KEY))


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"{}\n", b"\xff", b"[" * 100_000, b'{"signature": 1}'])
def test_what_is_no_receipt_is_refused_with_a_sentence(content: bytes) -> None:
    with pytest.raises(Refused, match=r"receipt"):
        receipt_signature.verify(content)


def test_the_chain_changes_with_any_change_of_history() -> None:
    told: list[dict[str, object]] = [{"seq": seq, "fact": "requested", "detail": {}} for seq in (1, 2, 3)]
    heads = {
        receipt.chain("a", told), receipt.chain("b", told), receipt.chain("a", told[:2]), receipt.chain("a", told[::-1]),
        receipt.chain("a", [*told[:2], {**told[2], "detail": {"by": "x"}}]),
    }  # fmt: skip
    assert len(heads) == 5
