"""Signs and verifies receipts: an Ed25519 signature over the canonical JSON. One changed byte invalidates it."""

import json
from collections.abc import Mapping
from typing import Any, TypedDict

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from app.domain import receipt
from app.domain.errors import Kind, Refused

ALGORITHM = "ed25519"
KEY_BYTES, SIGNATURE_BYTES = 32, 64


class Signature(TypedDict):
    """An Ed25519 signature and the public key that checks it, both in hex."""

    algorithm: str
    key: str
    value: str


class SignedReceipt(receipt.Receipt):
    """A receipt with its signature."""

    signature: Signature


def new_key() -> str:
    """A private key, as hex."""
    return Ed25519PrivateKey.generate().private_bytes_raw().hex()


def public_key(private: str) -> str:
    """The public half of a private key. Raises Refused."""
    return _load_private_key(private).public_key().public_bytes_raw().hex()


def sign(body: receipt.Receipt, private: str) -> SignedReceipt:
    """The receipt with its signature and the public key for the check."""
    value = _load_private_key(private).sign(_signed_bytes(body)).hex()
    return {**body, "signature": {"algorithm": ALGORITHM, "key": public_key(private), "value": value}}


def verify(content: bytes, key: str | None = None) -> dict[str, Any]:
    """Parse the receipt in a file and check its signature by `key`, or by the key that it names.

    Raises Refused with the fault: not JSON, changed, another key, no valid signature.
    """
    proof = _parse_exact(content)
    given = proof.get("signature")
    if not isinstance(given, dict) or given.keys() != {"algorithm", "key", "value"} or given["algorithm"] != ALGORITHM:
        raise Refused(Kind.INVALID, "The receipt bears no Ed25519 signature.")
    if key is not None and given["key"] != key:
        raise Refused(Kind.INVALID, f"The receipt is signed with another key: it names {given['key']}, not {key}.")
    public, value = _parse_hex(given["key"], KEY_BYTES), _parse_hex(given["value"], SIGNATURE_BYTES)
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(value, _signed_bytes(proof))
    except (InvalidSignature, ValueError):
        raise Refused(Kind.INVALID, "The signature does not fit: the receipt was changed after it was signed") from None
    return proof


def _parse_exact(content: bytes) -> dict[str, Any]:
    """Parse a receipt that is byte for byte as the fleet writes it. Equal JSON in another spelling is refused."""
    try:
        proof = json.loads(content)
        whole = isinstance(proof, dict) and content.rstrip(b"\n") == receipt.text(proof).rstrip("\n").encode()
    except (ValueError, RecursionError):
        raise Refused(Kind.INVALID, "The file is not a receipt: it is not JSON.") from None
    if not whole or content.endswith(b"\n\n"):
        raise Refused(Kind.INVALID, "The file is not written as a receipt is: something in it was changed.")
    return dict(proof)


def _signed_bytes(proof: Mapping[str, object]) -> bytes:
    return receipt.canonical({name: value for name, value in proof.items() if name != "signature"}).encode()


def _load_private_key(key: str) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(_parse_hex(key, KEY_BYTES))


def _parse_hex(written: object, length: int) -> bytes:
    """The bytes of lower-case hex with exactly this length. Raises Refused."""
    try:
        found = bytes.fromhex(written) if isinstance(written, str) else b""
    except ValueError:
        found = b""
    if len(found) != length or found.hex() != written:
        raise Refused(Kind.INVALID, f"A key or signature is {length} bytes as lower-case hex, and this is not.")
    return found
