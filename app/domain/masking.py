"""Masks secrets by their values in everything that is stored or shown."""

from collections.abc import Iterable
from typing import Any

MASK = "***"
SHORTEST = 6  # characters; a shorter value would mask ordinary words


class Mask:
    """Replace every known secret by `***` in text, bytes and nested JSON."""

    def __init__(self, secrets: Iterable[str | None] = ()) -> None:
        known = {secret for secret in secrets if secret and len(secret) >= SHORTEST}
        self._secrets = sorted(known, key=len, reverse=True)

    def text(self, value: str) -> str:
        for secret in self._secrets:
            value = value.replace(secret, MASK)
        return value

    def cut(self, value: bytes) -> int:
        """The number of bytes at the end that may be the beginning of a secret."""
        return max((_length_of_beginning(secret.encode(), value) for secret in self._secrets), default=0)

    def bytes(self, value: bytes) -> bytes:
        """Mask with as many stars as the secret has bytes, so that offsets into a log remain valid."""
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


def _length_of_beginning(secret: bytes, value: bytes) -> int:
    """The length of the longest end of `value` that is a beginning of `secret`, but not all of it."""
    longest = min(len(secret) - 1, len(value))
    return next((size for size in range(longest, 0, -1) if value.endswith(secret[:size])), 0)
