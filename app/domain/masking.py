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
