"""Serves Git LFS: the batch API, uploads and downloads."""

from __future__ import annotations

import hashlib
import re

from flask import Response, request

from .api import answer, repository
from .git_http import access_error, routes
from .models import Json

OID = re.compile(r"[0-9a-f]{64}\Z")


@routes.post("/info/lfs/objects/batch")
def batch() -> Response:
    asked: Json = request.get_json(force=True)
    if refused := access_error("git-receive-pack" if asked["operation"] == "upload" else "git-upload-pack"):
        return refused
    told = answer({"transfer": "basic", "objects": [one(asked["operation"], each) for each in asked["objects"]]})
    told.content_type = "application/vnd.git-lfs+json"
    return told


def one(operation: str, asked: Json) -> Json:
    """Where an object is to be had or brought; nothing to be done for one that is here already."""
    there = (repository().path / "lfs" / asked["oid"]).exists()
    known: Json = {"oid": asked["oid"], "size": asked["size"], "authenticated": True}
    if operation == "download" and not there:
        return known | {"error": {"code": 404, "message": "Not Found"}}
    if operation == "upload" and there:
        return known
    href = request.base_url.removesuffix("batch") + asked["oid"]
    return known | {
        "actions": {operation: {"href": href, "header": {"Authorization": request.headers["Authorization"]}}}
    }


@routes.put("/info/lfs/objects/<oid>")
def bring_object(oid: str) -> Response:
    if refused := access_error("git-receive-pack"):
        return refused
    if not OID.match(oid) or hashlib.sha256(request.get_data()).hexdigest() != oid:
        return Response("the content is another one\n", 422)
    path = repository().path / "lfs"
    path.mkdir(exist_ok=True)
    (path / oid).write_bytes(request.get_data())
    return Response(status=200)


@routes.get("/info/lfs/objects/<oid>")
def fetch_object(oid: str) -> Response:
    if refused := access_error("git-upload-pack"):
        return refused
    path = repository().path / "lfs" / oid
    return Response(path.read_bytes()) if OID.match(oid) and path.exists() else Response(status=404)
