"""Reads a JSON body strictly: what two readers could understand in two ways, or no database can hold, is refused."""

import json
from typing import Any, NoReturn

from flask import Request

from app.domain.errors import Kind, Refused

DEEPEST = 32  # levels; a reader further on, with less stack left, must be able to read it again
NO_JSON = "The body is not JSON: send a JSON object, in UTF-8, with Content-Type: application/json."


def read(req: Request) -> Any:
    """The JSON of the body; None where there is no body. Raises Refused(invalid)."""
    raw = req.get_data(cache=True)
    if not raw:
        return None
    if not req.is_json:
        raise Refused(Kind.INVALID, NO_JSON)
    return parsed(raw)


def parsed(raw: bytes) -> Any:
    """`raw` as JSON with no name twice, no NaN, no infinity, at most DEEPEST levels. Raises Refused(invalid)."""
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


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in found if names.count(name) > 1)
        raise Refused(Kind.INVALID, f"{twice[:100]}: Stands twice in one object; send it once.")
    return found


def _no_number(word: str) -> NoReturn:
    raise Refused(Kind.INVALID, f"{word} is no number that JSON has.")


def _finite(digits: str) -> float:
    found = float(digits)
    return found if found - found == 0 else _no_number(digits[:40])


def _depth(value: Any) -> int:
    """How many levels of lists and objects stand in each other; level by level, without recursion."""
    depth, level = 0, [value]
    while level := [one for one in level if isinstance(one, dict | list)]:
        depth += 1
        level = [inner for one in level for inner in (one.values() if isinstance(one, dict) else one)]
    return depth


_READER = json.JSONDecoder(object_pairs_hook=_once_each, parse_constant=_no_number, parse_float=_finite)
