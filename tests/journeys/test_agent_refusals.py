"""The reference agent refuses to start: one sentence for each fault, before it starts anything."""

import signal
from pathlib import Path

import pytest

from tests.journeys.agent_process import AgentProcess
from tests.journeys.issue_journey import Journey

pytestmark = pytest.mark.journey


class TestSentences:
    @staticmethod
    def said(puller: AgentProcess, *words: str, **environ: str) -> tuple[int, str]:
        puller.words, puller.environ = [*puller.words, *words], puller.environ | environ
        puller.start()
        code = puller.code()
        said = [line for line in puller.log.read_text().splitlines() if not line.startswith("{")]
        assert all(line.startswith("fleet agent: ") for line in said), said
        return code, "\n".join(said)

    def test_all_that_is_wrong_with_what_it_is_called_by_is_said_at_once(
        self, stage_of_agents: Journey, tmp_path: Path
    ) -> None:
        puller, wrong = AgentProcess(stage_of_agents, tmp_path), ("--server", "fleet.example.org", "--cli", "codex")
        nowhere = {"PATH": "/nowhere", "FLEET_ENROLL_TOKEN_FILE": "/nowhere/token", "FLEET_LOOK_SECS": "never"}
        code, said = self.said(puller, *wrong, **nowhere)
        assert code == 1
        sentences = (
            "--server 'fleet.example.org' must be an address", "/nowhere/token, which cannot be read", "git is missing",
            "needs the program 'codex'", "FLEET_LOOK_SECS='never'",
        )  # fmt: skip
        assert all(sentence in said for sentence in sentences), said
        assert not puller.state.exists()

    @pytest.mark.parametrize(
        ("words", "environ", "sentence"),
        [(["--cli", "nobody"], {}, "No CLI is named 'nobody'"),
         (["--agent-id", "../x"], {}, "agent_id"),
         ([], {"FLEET_ENROLL_TOKEN": "wrong"}, "does not let this agent in: Show an enrolment token")],
    )  # fmt: skip
    def test_one_for_each_fault(
        self, stage_of_agents: Journey, tmp_path: Path, words: list[str], environ: dict[str, str], sentence: str
    ) -> None:
        code, said = self.said(AgentProcess(stage_of_agents, tmp_path), *words, **environ)
        assert code == 1
        assert sentence in said

    def test_one_state_folder_is_one_agents(self, stage_of_agents: Journey, tmp_path: Path) -> None:
        first, second = AgentProcess(stage_of_agents, tmp_path), AgentProcess(stage_of_agents, tmp_path)
        first.start()
        try:
            stage_of_agents.until((first.state / "token").exists, "registered")
            second.log = tmp_path / "second.log"
            code, said = self.said(second)
            assert (code, "Another agent works with" in said) == (1, True)
            first.send(signal.SIGTERM)
            assert first.code() == 0
            code, said = self.said(second, "--agent-id", "another-agent")
            assert (code, "belongs to the agent 'puller-" in said) == (1, True)
        finally:
            first.end()
