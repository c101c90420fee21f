"""REST: files and commit statuses."""

from __future__ import annotations

import base64
import binascii

from flask import Response, request

from . import branches, commits, git_commands, repository_json
from .api import ApiError, answer, for_repositories, json_body, paged, repository, require, store, viewer
from .models import Json, Status

routes = for_repositories("code")
STATES = ("pending", "success", "error", "failure", "warning", "skipped")


@routes.get("/contents/<path:name>")
def contents(name: str) -> Response:
    ref = request.args.get("ref") or repository().default_branch
    sha = git_commands.resolve(repository().path, ref)
    if sha is None:
        raise ApiError(404)
    listed = git_commands.text(repository().path, "ls-tree", "-l", "-z", sha, "--", name.rstrip("/")).split("\0")
    if not listed[0]:
        raise ApiError(404)
    (_, kind, blob, size), path = listed[0].split("\t")[0].split(), listed[0].split("\t")[1]
    if kind != "tree":
        return answer(file_shown(path, blob, int(size), sha, ref, with_content=True))
    inside = git_commands.text(repository().path, "ls-tree", "-l", "-z", f"{sha}:{path}").split("\0")
    rows = [(row.split("\t")[0].split(), row.split("\t")[1]) for row in inside if row]
    return answer(
        [
            file_shown(
                f"{path}/{leaf}",
                facts[2],
                0 if facts[1] == "tree" else int(facts[3]),
                sha,
                ref,
                kind="dir" if facts[1] == "tree" else "file",
            )
            for facts, leaf in rows
        ]
    )


def file_shown(
    path: str, blob: str, size: int, sha: str, ref: str, kind: str = "file", with_content: bool = False
) -> Json:
    web, api = repository_json.html(store(), repository()), f"{store().url}/api/v1/repos/{repository().full_name}"
    text = (
        base64.b64encode(git_commands.run(repository().path, "cat-file", "blob", blob)).decode()
        if with_content
        else None
    )
    urls = {
        "url": f"{api}/contents/{path}?ref={ref}",
        "html_url": f"{web}/src/branch/{ref}/{path}",
        "git_url": f"{api}/git/blobs/{blob}",
    }
    last = commits.read(repository().path, sha, limit=1)[0]
    return {
        "name": path.rsplit("/", 1)[-1],
        "path": path,
        "sha": blob,
        "last_commit_sha": last["sha"],
        "last_commit_when": last["committer_date"],
        "type": kind,
        "size": size,
        "encoding": "base64" if with_content else None,
        "content": text,
        "target": None,
        **urls,
        "download_url": f"{web}/raw/branch/{ref}/{path}" if kind == "file" else None,
        "submodule_git_url": None,
        "_links": {"self": urls["url"], "git": urls["git_url"], "html": urls["html_url"]},
    }


@routes.route("/contents/<path:name>", methods=["POST", "PUT"])
def write(name: str) -> Response:
    """Make or change one file in one commit; a change must name the blob it believes to be there."""
    order, user, repo = json_body("content"), require("write"), repository()
    branch = order.get("branch") or repo.default_branch
    try:
        content = base64.b64decode(order["content"], validate=True).decode()
    except (binascii.Error, UnicodeDecodeError) as wrong:
        raise ApiError(422, "content is not base64 of UTF-8 text") from wrong
    there = blob_of(branch, name)
    if (order.get("sha") or "") != there:
        raise ApiError(422, "sha does not match" if there else "file does not exist")
    new = branches.write_file(store(), repo, user, branch, {name: content}, order.get("message") or f"Write {name}\n")
    one = commits.in_api(store(), repo, commits.one_of(repo, new))
    commit = {
        **one["commit"],
        "sha": new,
        "created": one["created"],
        "html_url": one["html_url"],
        "parents": one["parents"],
    }
    commit.pop("verification")
    shown = file_shown(name, blob_of(branch, name), len(content.encode()), new, branch, with_content=True)
    return answer({"content": shown, "commit": commit, "verification": None}, 200 if there else 201)


def blob_of(branch: str, name: str) -> str:
    sha = git_commands.branch(repository().path, branch)
    if sha is None:
        raise ApiError(404)
    row = git_commands.text(repository().path, "ls-tree", sha, "--", name)
    return row.split()[2] if row else ""


def sha_of(ref: str) -> str:
    sha = git_commands.resolve(repository().path, ref)
    if sha is None:
        raise ApiError(404)
    return sha


@routes.post("/statuses/<sha>")
def set_status(sha: str) -> Response:
    order, user = json_body("state"), require("write")
    if order["state"] not in STATES:
        raise ApiError(400, f"unknown state {order['state']}")
    sha = sha_of(sha)
    one = Status(
        next(store().status_ids),
        order["state"],
        order.get("context") or "default",
        order.get("description") or "",
        order.get("target_url") or "",
        user,
        store().now(),
    )
    repository().statuses.setdefault(sha, []).append(one)
    return answer(repository_json.status(store(), repository(), sha, one), 201)


@routes.get("/statuses/<ref>")
@routes.get("/commits/<path:ref>/statuses")
def list_statuses(ref: str) -> Response:
    sha = sha_of(ref)
    newest_first = repository().statuses.get(sha, [])[::-1]
    return paged(newest_first, lambda one: repository_json.status(store(), repository(), sha, one))


@routes.get("/commits/<path:ref>/status")
def combined(ref: str) -> Response:
    """The latest of each context, one page of them; together as bad as the worst."""
    sha = sha_of(ref)
    latest = {one.context: one for one in repository().statuses.get(sha, [])}
    order = ["error", "failure", "warning", "pending", "success", "skipped"]
    worst = min((one.state for one in latest.values()), key=order.index, default="")
    api = f"{store().url}/api/v1/repos/{repository().full_name}/commits/{sha}"
    return answer(
        {
            "state": worst,
            "sha": sha,
            "total_count": len(latest),
            "statuses": paged(
                list(latest.values()), lambda one: repository_json.status(store(), repository(), sha, one)
            ).json,
            "repository": repository_json.repository(store(), repository(), viewer()),
            "commit_url": api,
            "url": f"{api}/status",
        }
    )


@routes.get("/compare/<path:basehead>")
def compare(basehead: str) -> Response:
    """What the second has that the first has not; either may be a branch or a commit."""
    base, _, head = basehead.partition("...")
    found = commits.between(repository(), sha_of(base), sha_of(head))
    shown = [commits.in_api(store(), repository(), one) for one in found]
    return answer({"total_commits": len(shown), "commits": shown})
