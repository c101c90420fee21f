"""The signature of a webhook delivery: hex HMAC-SHA256 of the body."""

import hashlib
import hmac


def sign(secret: str, body: bytes) -> str:
    return hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def is_signed(secret: str, body: bytes, signature: str | None) -> bool:
    """Whether `signature` (bare hex, or with `sha256=` before it) is that of `body`. An empty one never is:
    the forge sends the header empty when its hook has no secret."""
    given = (signature or "").strip().removeprefix("sha256=")
    if not given or not secret or not given.isascii():
        return False
    return hmac.compare_digest(sign(secret, body), given.lower())
