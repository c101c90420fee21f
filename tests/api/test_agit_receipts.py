"""Receipts of work that was pushed to `refs/for/`."""

from typing import Any

import pytest

from app.cli.demo.forge import agit as forge_agit
from app.domain.task import State
from tests.agent_client import Agent, an_agent
from tests.api.receipt_scene import pull_url, taken
from tests.builders import a_host, apply, declared
from tests.workshop import WIDGETS, Workshop


class TestPushedForReview:
    """A repository that takes pull requests by push alone."""

    @pytest.fixture
    def agit(self, shop: Workshop) -> Workshop:
        rule = declared()["repositories"][0] | {"flow": "agit"}
        with shop.fleet.engine.begin() as conn:
            apply(conn, forge_url=shop.forge.url, repositories=[rule], hosts=[a_host(capabilities=("nothing",))])
        shop.people["coder"] = shop.forge.client(
            shop.forge.add_user("coder")
        )  # read permission is enough for this push
        return shop

    def push(self, shop: Workshop, told: Any, by: str, content: str = "1") -> str:
        """As `git push` with these options would."""
        store, repo = shop.forge.store, shop.forge.repository(WIDGETS)
        branch = f"elsewhere-{by}"
        shop.people["alice"].post(f"/repos/{WIDGETS}/branches", json={"new_branch_name": branch})
        sha = shop.forge.commit(WIDGETS, "alice", branch, {"total.py": content}, "Write")
        options = dict(one.split("=", 1) for one in told["options"])
        asked = {name: value if name != "description" else forge_agit.decoded(value) for name, value in options.items()}
        with store.lock:
            forge_agit.pushed(store, repo, store.users[by], told["ref"], sha, asked)
        return sha

    @pytest.mark.parametrize("by", ["fleet", "coder"])
    @pytest.mark.parametrize("claim", ["commit", "pr"])
    def test_the_agent_is_told_how_and_its_pull_request_is_the_tasks(
        self, agit: Workshop, agent: Agent, by: str, claim: str
    ) -> None:
        number, task = taken(agit, agent)
        assert task["push"]["ref"] == "refs/for/main" and f"topic={task['branch_name']}" in task["push"]["options"]
        self.stranger(agit, task)
        sha = self.push(agit, task["push"], by)
        pull = max(agit.pulls())
        made = {"type": "commit", "sha": sha} if claim == "commit" else {"type": "pr", "url": pull_url(agit, pull)}
        answer = agent.say(task, "complete", status="completed", artifacts=[made])
        assert answer.status_code == 200
        agit.converge()
        done = agit.task(number)
        assert (done.state, done.pr_number, done.head) == (State.REVIEW_PENDING, pull, sha)
        body = agit.people["alice"].get(f"/repos/{WIDGETS}/pulls/{pull}").json()["body"]
        assert body.startswith(f"Closes #{number}")
        assert ("kind=pull" in body) == (by == "fleet"), "the words of others stay as they are"
        agit.merge(pull)
        agit.converge()
        assert agit.task(number).state is State.COMPLETED

    def stranger(self, shop: Workshop, task: Any) -> None:
        """A user with read permission only opened a pull request with the same topic first."""
        self.push(shop, task["push"], "mallory", "evil")
        shop.converge()
        assert shop.shown(int(task["task_id"].rpartition("#")[2]))["pr_number"] is None

    def test_a_strangers_topic_alone_delivers_nothing(self, agit: Workshop, agent: Agent) -> None:
        number, task = taken(agit, agent)
        self.stranger(agit, task)
        assert agent.say(task, "complete", status="completed").get_json()["status"] == "failed"
        assert agit.task(number).reason == "no_delivery"

    def test_who_may_write_can_push_a_branch_all_the_same(self, agit: Workshop, agent: Agent) -> None:
        number, task = taken(agit, agent)
        agit.push(number)
        agent.say(task, "complete", status="completed")
        agit.converge()
        assert (agit.task(number).state, len(agit.pulls())) == (State.REVIEW_PENDING, 1)

    def test_a_task_that_is_taken_again_says_where_its_work_is(self, agit: Workshop, agent: Agent) -> None:
        number, task = taken(agit, agent)
        sha = self.push(agit, task["push"], "fleet")
        agent.say(task, "complete", status="completed", artifacts=[{"type": "commit", "sha": sha}])
        agit.converge()
        agit.review(agit.task(number).pr_number or 0)
        agit.converge()
        agent.post("/agents/deregister")
        other = an_agent(agit.client, "a2").dequeue().get_json()
        assert other["push"]["fetch"] == f"refs/pull/{agit.task(number).pr_number}/head"
