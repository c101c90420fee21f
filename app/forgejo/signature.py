"""Checks the signature of a webhook delivery: HMAC-SHA256 of the body, in hex."""

import hashlib
import hmac


def is_signed(secret: str, body: bytes, signature: str | None) -> bool:
    """Whether `signature` (hex, with or without `sha256=` before it) is the signature of `body`.

    An empty signature or secret never matches: the forge sends an empty header if its hook has no secret.
    """
    given = (signature or "").strip().removeprefix("sha256=")
    if not given or not secret or not given.isascii():
        return False
    return hmac.compare_digest(sign(secret, body), given.lower())


def sign(secret: str, body: bytes) -> str:
    """The signature of `body`, as 64 hex digits."""
    return hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
