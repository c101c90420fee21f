"""Git itself clones from and pushes to the fake forge, as far as each one's rights go."""

from __future__ import annotations

import gzip
import random

import httpx

from .conftest import Town


def test_anyone_clones_a_public_repository_but_not_a_private_one(town: Town) -> None:
    url = f"{town.forge.url}/acme/widgets.git"
    assert town.clone().git("ls-remote", url).returncode == 0
    town.forge.repository("acme/widgets").private = True
    refused = httpx.get(f"{url}/info/refs?service=git-upload-pack")
    assert (refused.status_code, "Basic" in refused.headers["WWW-Authenticate"]) == (401, True)
    stranger = town.forge.add_user("stranger")
    missing = httpx.get(f"{url}/info/refs?service=git-upload-pack", auth=("stranger", stranger))
    assert missing.status_code == 404


def test_pushing_needs_the_right_to_write(town: Town) -> None:
    clone = town.clone(token=town.forge.add_user("stranger"))
    clone.commit("mine.txt", "mine", "Mine")
    done = clone.git("push", "origin", "HEAD")
    assert done.returncode != 0
    assert "403" in done.stderr
    nobody = clone.git("push", f"{town.forge.url}/acme/widgets.git", "HEAD")
    assert nobody.returncode != 0


def test_a_large_push_comes_in_chunks(town: Town) -> None:
    clone = town.clone()
    clone.commit("large.bin", random.Random(1).randbytes(5_000_000), "Large")
    assert clone.git("push", "--quiet", "origin", "HEAD").returncode == 0
    assert town.clone("again").git("cat-file", "-s", "HEAD:large.bin").stdout.strip() == "5000000"


def test_a_zipped_request_is_read(town: Town) -> None:
    answer = httpx.post(
        f"{town.forge.url}/acme/widgets.git/git-upload-pack",
        content=gzip.compress(b"0014command=ls-refs\n0000"),
        headers={"Content-Encoding": "gzip", "Git-Protocol": "version=2"},
    )
    assert b"refs/heads/main" in answer.content


def test_a_forced_push_says_no_more_than_before_and_after(hooked: Town) -> None:
    first = hooked.pushed("task/1-a")
    number = hooked.pull("task/1-a")
    clone = hooked.clone()
    hooked.sent()
    clone.git("checkout", "--quiet", "-b", "task/1-a", "origin/main")
    second = clone.commit("hello.py", "print('other')\n", "Write it anew")
    assert clone.git("push", "--quiet", "--force", "origin", "HEAD").returncode == 0
    assert hooked.sent(forget=False) == ["push", "pull_request_sync/synchronized"]
    push = hooked.forge.deliveries[0].body
    assert (push["before"], push["after"]) == (first, second)
    assert hooked.fleet.get(f"/repos/acme/widgets/pulls/{number}").json()["head"]["sha"] == second


def test_a_tag_is_created_and_deleted(hooked: Town) -> None:
    clone = hooked.clone()
    clone.git("tag", "v1")
    clone.git("push", "--quiet", "origin", "v1")
    clone.git("push", "--quiet", "origin", ":v1")
    assert hooked.sent(forget=False) == ["create", "push", "push", "delete"]
    assert hooked.forge.deliveries[0].body["ref_type"] == "tag"
