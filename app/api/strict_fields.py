"""Fields that take just what they are called: no words for numbers, no numbers for yes and no, no boundless JSON."""

import json
from datetime import UTC, datetime
from typing import Any

from marshmallow import ValidationError, fields, validate

MOST_TOKENS, MOST_DOLLARS = 2**53, 1e9
LARGEST_JSON = 64 * 1024


class Flag(fields.Boolean):
    """true or false."""

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> bool:
        if not isinstance(value, bool):
            raise self.make_error("invalid", input=value)
        return value


class Number(fields.Float):
    """A number, not a word for one."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> float:
        if isinstance(value, str):
            raise self.make_error("invalid", input=value)
        return super()._deserialize(value, attr, data, **kwargs)


class Whole(fields.Integer):
    """A whole number, not a word for one."""

    def __init__(self, **given: Any) -> None:
        super().__init__(strict=True, **given)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> int:
        if not isinstance(value, int):
            raise self.make_error("invalid", input=value)
        return super()._deserialize(value, attr, data, **kwargs)


class Moment(fields.AwareDateTime):
    """A moment of our time, as RFC 3339 in UTC: calendars and databases differ on the rest."""

    def __init__(self, **given: Any) -> None:
        super().__init__(default_timezone=UTC, format="iso", **given)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        found: datetime = super()._deserialize(value, attr, data, **kwargs)
        if not 2000 <= found.year <= 2100:
            raise self.make_error("invalid", input=value, obj_type=self.OBJ_TYPE)
        return found.astimezone(UTC).isoformat()


def small(value: Any) -> None:
    """What callers may store at will is bounded."""
    if len(json.dumps(value)) > LARGEST_JSON:
        raise ValidationError(f"Must be at most {LARGEST_JSON // 1024} KiB of JSON.")


up_to_dollars = validate.Range(0, MOST_DOLLARS)
up_to_tokens = validate.Range(0, MOST_TOKENS)
