"""Marshmallow fields that convert nothing: no strings as numbers, no numbers as booleans."""

import json
from datetime import UTC, datetime
from typing import Any

from marshmallow import ValidationError, fields, validate

MOST_TOKENS, MOST_DOLLARS = 2**53, 1e9
LARGEST_JSON = 64 * 1024


class StrictBoolean(fields.Boolean):
    """true or false; no other value."""

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> bool:
        if not isinstance(value, bool):
            raise self.make_error("invalid", input=value)
        return value


class StrictNumber(fields.Float):
    """A number; no string."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> float:
        if isinstance(value, str):
            raise self.make_error("invalid", input=value)
        return super()._deserialize(value, attr, data, **kwargs)


class StrictInteger(fields.Integer):
    """A whole number; no string, no fraction."""

    def __init__(self, **given: Any) -> None:
        super().__init__(strict=True, **given)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> int:
        if not isinstance(value, int):
            raise self.make_error("invalid", input=value)
        return super()._deserialize(value, attr, data, **kwargs)


class UtcDateTime(fields.AwareDateTime):
    """A time from 2000 to 2100, loaded as RFC 3339 in UTC. Databases differ beyond that."""

    def __init__(self, **given: Any) -> None:
        super().__init__(default_timezone=UTC, format="iso", **given)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        found: datetime = super()._deserialize(value, attr, data, **kwargs)
        if not 2000 <= found.year <= 2100:
            raise self.make_error("invalid", input=value, obj_type=self.OBJ_TYPE)
        return found.astimezone(UTC).isoformat()


def check_json_size(value: Any) -> None:
    """Refuse JSON above 64 KiB: callers may store any."""
    if len(json.dumps(value)) > LARGEST_JSON:
        raise ValidationError(f"Must be at most {LARGEST_JSON // 1024} KiB of JSON.")


up_to_dollars = validate.Range(0, MOST_DOLLARS)
up_to_tokens = validate.Range(0, MOST_TOKENS)
