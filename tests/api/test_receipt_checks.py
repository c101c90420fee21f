"""Checks in a receipt decide whether its pull request is work in progress."""

import pytest

from tests.agent_client import Agent
from tests.api.receipt_scene import taken
from tests.api.test_tasks import assert_error
from tests.builders import a_host, apply, declared
from tests.workshop import WIDGETS, Workshop


class TestWorkInProgress:
    """A repository with checks, and receipts that tell of none."""

    @pytest.fixture
    def checked(self, shop: Workshop) -> Workshop:
        rule = declared()["repositories"][0] | {"validation": ["make test"]}
        with shop.fleet.engine.begin() as conn:
            apply(conn, forge_url=shop.forge.url, repositories=[rule], hosts=[a_host(capabilities=("nothing",))])
        return shop

    def title(self, shop: Workshop, number: int) -> str:
        pull = shop.task(number).pr_number
        return str(shop.people["alice"].get(f"/repos/{WIDGETS}/pulls/{pull}").json()["title"])

    def test_the_answer_says_how_to_get_out_of_it_and_the_same_receipt_with_checks_does(
        self, checked: Workshop, agent: Agent
    ) -> None:
        number, task = taken(checked, agent)
        checked.push(number)
        told = {"status": "completed", "summary": "Done."}
        assert "send the same receipt again" in agent.say(task, "complete", **told).get_json()["notice"]
        checked.converge()
        assert self.title(checked, number) == "WIP: Fix the total"
        failed = [{"command": "make test", "exit_code": 2}]
        assert_error(agent.say(task, "complete", **told, checks=failed), 400, "invalid")
        passed = [{"command": "make test", "exit_code": 0}]
        checked.forge.faults.next("PATCH", r"/pulls/\d+$", 503)
        assert agent.say(task, "complete", **told, checks=passed).status_code == 503
        answer = agent.say(task, "complete", **told, checks=passed)
        assert answer.status_code == 200 and "notice" not in answer.get_json()
        assert self.title(checked, number) == "Fix the total"
        assert checked.shown(number)["runs"][-1]["checks"] == passed
        assert checked.facts(number).count("finished") == 1

    def test_with_checks_there_is_nothing_to_say(self, checked: Workshop, agent: Agent) -> None:
        number, task = taken(checked, agent)
        checked.push(number)
        passed = [{"command": "make test", "exit_code": 0}]
        answer = agent.say(task, "complete", status="completed", checks=passed)
        assert "notice" not in answer.get_json()
        checked.converge()
        assert self.title(checked, number) == "Fix the total"
