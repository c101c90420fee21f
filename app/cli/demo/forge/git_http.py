"""Serves git over HTTP with git's own programs: clone, fetch and push."""

from __future__ import annotations

import gzip
import subprocess

from flask import Blueprint, Response, request

from . import agit, branches, git_commands
from .api import repository as asked_repository
from .api import store, viewer
from .git_commands import QUIET, ZERO
from .models import Repository

routes = Blueprint("git", __name__, url_prefix="/<owner>/<repo>")
SERVICES = {"git-upload-pack": "read", "git-receive-pack": "write"}


@routes.get("/info/refs")
def advertise() -> Response:
    service = request.args.get("service", "")
    if service not in SERVICES:
        return Response("only the smart protocol is spoken here\n", 403)
    if refused := access_error(service):
        return refused
    head = f"# service={service}\n"
    answer = f"{len(head) + 4:04x}{head}0000".encode() + call(service, b"", "--advertise-refs")
    return pack(answer, service, "advertisement")


@routes.post("/git-upload-pack")
def fetch() -> Response:
    if refused := access_error("git-upload-pack"):
        return refused
    return pack(call("git-upload-pack", body()), "git-upload-pack", "result")


@routes.post("/git-receive-pack")
def push() -> Response:
    if refused := access_error("git-receive-pack"):
        return refused
    repo, user, sent = asked_repository(), viewer(), body()
    assert user is not None
    with store().lock:
        before = git_commands.refs(repo.path)
        answer = call("git-receive-pack", sent)
        after = git_commands.refs(repo.path)
        for ref in sorted(set(before) | set(after)):
            if ref.startswith(agit.FOR):
                agit.pushed(store(), repo, user, ref, after[ref], agit.options(sent))
            else:
                branches.moved(store(), repo, user, ref, before.get(ref, ZERO), after.get(ref, ZERO))
    return pack(answer, "git-receive-pack", "result")


def access_error(service: str) -> Response | None:
    """The response that refuses access: 401 without a needed token, 403 or 404 without the right. None if allowed."""
    repo: Repository | None = asked_repository()
    user, needed = viewer(), SERVICES[service]
    if repo is not None and store().may(user, needed, repo) and (user or needed == "read"):
        return Response("the repository is archived\n", 403) if repo.archived and needed == "write" else None
    if user is None:
        return Response("Unauthorized\n", 401, {"WWW-Authenticate": 'Basic realm="Gitea"'})
    seen = repo is not None and store().may(user, "read", repo)
    return Response("Forbidden\n" if seen else "Not found.\n", 403 if seen else 404)


def body() -> bytes:
    sent = request.get_data()
    return gzip.decompress(sent) if request.headers.get("Content-Encoding") == "gzip" else sent


def call(service: str, sent: bytes, *args: str) -> bytes:
    env = {**QUIET, "GIT_PROTOCOL": request.headers.get("Git-Protocol", "")}
    command = ["git", service.removeprefix("git-"), "--stateless-rpc", *args, str(asked_repository().path)]
    return subprocess.run(command, input=sent, env=env, capture_output=True, check=False).stdout


def pack(answer: bytes, service: str, what: str) -> Response:
    return Response(
        answer,
        content_type=f"application/x-{service}-{what}",
        headers={"Cache-Control": "no-cache, max-age=0, must-revalidate"},
    )
