"""Parses a JSON body strictly: refuses what is ambiguous (a name twice, NaN) or nested too deeply."""

import json
from typing import Any, NoReturn

from flask import Request

from app.domain.errors import Kind, Refused

DEEPEST = 32  # levels; later parsers, with less stack left, must be able to parse it again
NO_JSON = "The body is not JSON: send a JSON object, in UTF-8, with Content-Type: application/json."


def read(req: Request) -> Any:
    """The JSON of the body; None without a body. Raises Refused(invalid)."""
    raw = req.get_data(cache=True)
    if not raw:
        return None
    if not req.is_json:
        raise Refused(Kind.INVALID, NO_JSON)
    return parse(raw)


def parse(raw: bytes) -> Any:
    """Parse JSON without a name twice, NaN or infinity, at most DEEPEST levels. Raises Refused(invalid)."""
    try:
        found = _READER.decode(raw.decode())
    except (UnicodeDecodeError, json.JSONDecodeError):
        raise Refused(Kind.INVALID, NO_JSON) from None
    except RecursionError:
        _too_deep()
    if raw.count(b"[") + raw.count(b"{") > DEEPEST and _depth(found) > DEEPEST:
        _too_deep()
    return found


def _too_deep() -> NoReturn:
    raise Refused(Kind.INVALID, f"The body is nested too deeply: at most {DEEPEST} levels.")


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in found if names.count(name) > 1)
        raise Refused(Kind.INVALID, f"{twice[:100]}: Appears twice in one object; send it once.")
    return found


def _refuse_constant(word: str) -> NoReturn:
    raise Refused(Kind.INVALID, f"{word} is not a JSON number.")


def _parse_finite(digits: str) -> float:
    found = float(digits)
    return found if found - found == 0 else _refuse_constant(digits[:40])


def _depth(value: Any) -> int:
    """Levels of nested lists and objects, counted without recursion."""
    depth, level = 0, [value]
    while level := [one for one in level if isinstance(one, dict | list)]:
        depth += 1
        level = [inner for one in level for inner in (one.values() if isinstance(one, dict) else one)]
    return depth


_READER = json.JSONDecoder(
    object_pairs_hook=_refuse_duplicates, parse_constant=_refuse_constant, parse_float=_parse_finite
)
