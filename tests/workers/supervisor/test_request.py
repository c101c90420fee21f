"""A request is checked before anything is done."""

from __future__ import annotations

import pytest

from tests.workers.supervisor.host import (
    Host,
    Json,
)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("[]", "not a JSON object"),
        ("{}", "instance"),
        (
            '{"instance": "i1", "run": "../x", "task": "t", "agent": {"argv": ["a"], "prompt": ""}}',
            "cannot name",
        ),
        (
            '{"instance": ".i", "run": "x", "task": "t", "agent": {"argv": ["a"], "prompt": ""}}',
            "cannot name",
        ),
        ('{"instance": "i1", "run": "x", "task": "t", "agent": {"argv": [], "prompt": ""}}', "argv"),
        ('{"instance": "i1", "run": "x", "task": "t", "agent": {"argv": [1], "prompt": ""}}', "argv"),
        ('{"instance": "i1", "run": "x", "task": "t", "agent": {"argv": ["a"]}}', "agent.prompt"),
    ],
)
def test_an_invalid_request_is_refused_with_a_reason(host: Host, text: str, hint: str) -> None:
    code, answer = host.call("start", text)
    assert code == 2
    assert hint in answer["error"]


@pytest.mark.parametrize("change", [{"branch": "--force"}, {"branch": "a..b"}, {"url": "--upload-pack=x"},
                                    {"base": "x y"}, {"url": "http://a:b@h/x"}, {"branch": "x.lock"},
                                    {"pushed": "--all"}])  # fmt: skip
def test_a_repository_with_options_as_names_is_refused(host: Host, change: Json) -> None:
    code, answer = host.call("start", host.request(repository=host.repository(**change)))
    assert (code, list(answer)) == (2, ["error"])
    assert not host.home.exists()


def test_a_field_of_the_wrong_type_is_refused(host: Host) -> None:
    host.start("true")
    for runs in ([{"run": "t-12.1", "stdout": "x"}], [{"run": "t-12.1", "stdout": [1]}], [7]):
        code, answer = host.call("poll", {"home": str(host.home), "instance": "i1", "runs": runs})
        assert (code, list(answer)) == (2, ["error"])


def test_an_unknown_verb_is_refused_with_a_list_of_verbs(host: Host) -> None:
    code, answer = host.call("dance", "{}")
    assert code == 2
    assert "start, poll, cancel, release, probe" in answer["error"]
