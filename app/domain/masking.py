"""Secrets, masked by value in whatever is stored or shown."""

from collections.abc import Iterable
from typing import Any

MASK = "***"
SHORTEST = 6  # a shorter value would blot out ordinary words


class Mask:
    """Replaces every known secret by `***`, in text, bytes and nested JSON."""

    def __init__(self, secrets: Iterable[str | None] = ()) -> None:
        known = {secret for secret in secrets if secret and len(secret) >= SHORTEST}
        self._secrets = sorted(known, key=len, reverse=True)

    def text(self, value: str) -> str:
        for secret in self._secrets:
            value = value.replace(secret, MASK)
        return value

    def cut(self, value: bytes) -> int:
        """How many bytes at the end may be the beginning of a secret whose rest is still to come."""
        return max((_begun(secret.encode(), value) for secret in self._secrets), default=0)

    def bytes(self, value: bytes) -> bytes:
        """Of the same length, so that offsets into a log stay true."""
        for secret in self._secrets:
            raw = secret.encode()
            value = value.replace(raw, b"*" * len(raw))
        return value

    def json(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {key: self.json(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.json(item) for item in value]
        return value


def _begun(secret: bytes, value: bytes) -> int:
    """The longest end of `value` with which `secret` begins, if it is not all of it."""
    longest = min(len(secret) - 1, len(value))
    return next((size for size in range(longest, 0, -1) if value.endswith(secret[:size])), 0)
