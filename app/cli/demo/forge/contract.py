"""Checks each call against Forgejo's API description: path, status, keys of request and response."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from flask import Response, request

from .models import Json

ANYWHERE = {307, 401, 403, 404, 422, 423}  # every call may be refused, or sent to a new name, described or not
EVERYWHERE = {"token"}  # in the query of every call
NOT_DESCRIBED = {"User": {"username"}}  # Forgejo adds it when it writes the JSON


class Contract:
    def __init__(self, description: Path) -> None:
        self.all: Json = json.loads(description.read_text())
        self.paths = [(pattern(path), path) for path in sorted(self.all["paths"], key=lambda path: path.count("{"))]
        self.violations: list[str] = []

    def after_request(self, response: Response) -> Response:
        path = request.path.removeprefix("/api/v1").replace("\x1f", "%2F")
        if request.path.startswith("/api/v1/"):
            body = response.get_json(silent=True) if response.is_json else None
            self.check(request.method, path, request.get_json(silent=True), response.status_code, body, request.args)
        return response

    def check(self, method: str, path: str, asked: Any, status: int, answered: Any, query: Iterable[str] = ()) -> None:
        call = self.find(method.lower(), path)
        here = f"{method} {path}"
        if call is None:
            self.violations.append(f"{here}: Forgejo has no such call, or it is not in the description kept here")
            return
        known = {one["name"] for one in call.get("parameters", []) if one["in"] == "query"}
        for name in set(query) - known - EVERYWHERE:
            self.violations.append(f"{here} asks: no parameter {name}")
        for parameter in call.get("parameters", []):
            if parameter["in"] == "body" and asked is not None:
                self.compare(parameter["schema"], asked, f"{here} asks")
        declared = call["responses"].get(str(status))
        if declared is not None and answered is not None:
            self.compare(declared, answered, f"{here} -> {status}")
        elif declared is None and status not in ANYWHERE:
            self.violations.append(f"{here}: status {status} is not described")

    def find(self, method: str, path: str) -> Json | None:
        for regex, name in self.paths:
            if regex.fullmatch(path) and method in self.all["paths"][name]:
                found: Json = self.all["paths"][name][method]
                return found
        return None

    def compare(self, schema: Json, value: Any, where: str) -> None:
        name = schema.get("$ref", "").rsplit("/", 1)[-1]
        if "$ref" in schema:
            schema = self.all[schema["$ref"].split("/")[1]].get(name, {})
        if "schema" in schema or ("$ref" in schema):
            self.compare(schema.get("schema", schema), value, where)
        elif schema.get("type") == "array" and value is not None:
            for each in value if isinstance(value, list) else []:
                self.compare(schema["items"], each, where)
        elif "properties" in schema and isinstance(value, dict):
            self.keys(schema["properties"], NOT_DESCRIBED.get(name, set()), value, f"{where} {name}")

    def keys(self, declared: Json, extra: set[str], value: Json, where: str) -> None:
        for key in value.keys() - declared.keys() - extra:
            self.violations.append(f"{where}: no field {key}")
        for key in value.keys() & declared.keys():
            self.compare(declared[key], value[key], f"{where}.{key}")


def pattern(path: str) -> re.Pattern[str]:
    """Like the router: numbers are numbers, and only the last name may hold slashes."""
    text = re.escape(path).replace(r"\{", "{").replace(r"\}", "}")
    text = re.sub(r"\{(index|id|comment|run_id)\}", r"\\d+", text)
    text = re.sub(r"\{(filepath|head|branch|ref|basehead)\}", ".+", text)
    return re.compile(re.sub(r"\{\w+\}", "[^/]+", text))
