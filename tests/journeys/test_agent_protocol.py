"""docs/agent-protocol.md: its examples are taken out of the page and do a task as they stand; its table is the API's."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from app.api.errors import STATUS
from app.store import views
from tests.journeys.agent_process import AgentProcess
from tests.journeys.issue_journey import Journey
from tests.journeys.test_agent import log_of, pulls
from tests.patience import patient

PAGE = (Path(__file__).parents[2] / "docs" / "agent-protocol.md").read_text()
CODER = Path(__file__).parents[2] / "app" / "cli" / "demo" / "coder.py"
NEEDS = {"sh": ("sh", "curl", "jq", "base64"), "python": ("python3",)}


def example(language: str) -> str:
    found = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    assert len(found) == 1
    return str(found[0])


@pytest.mark.journey
@pytest.mark.parametrize("language", ["sh", "python"])
def test_the_example_takes_a_task_from_the_queue_to_its_receipt(
    stage_of_agents: Journey, tmp_path: Path, language: str
) -> None:
    missing = [program for program in NEEDS[language] if shutil.which(program) is None]
    if missing:
        pytest.skip(f"this machine has no {', '.join(missing)}")
    names = AgentProcess(stage_of_agents, tmp_path)
    script, said = tmp_path / "agent", tmp_path / "said"
    script.write_text(example(language))
    script.chmod(0o755)
    environ = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HOME": str(tmp_path), "TMPDIR": str(tmp_path),
        "FLEET_URL": stage_of_agents.stage.config.public_url, "FLEET_ENROLL_TOKEN": names.environ["FLEET_ENROLL_TOKEN"],
        "FORGE_TOKEN": names.environ["FLEET_FORGE_TOKEN"], "AGENT_ID": names.agent_id, "CAPABILITY": names.can,
        "CODER": f"{sys.executable} {CODER} --seconds 0.2", "BEAT_SECS": "0.5",
    }  # fmt: skip
    with said.open("wb") as out:
        agent = subprocess.Popen([script], env=environ, stdout=out, stderr=out)
    try:
        task_id = names.issue()
        task = stage_of_agents.to_the_merge(task_id)
        assert agent.wait(patient(20)) == 0
    except AssertionError as error:
        error.add_note(f"--- the example said\n{said.read_text()}")
        raise
    finally:
        agent.kill()
        agent.wait()
    assert said.read_text().splitlines()[-1] == "completed"
    assert [run["end"] for run in task["runs"]] == ["finished", "finished"]
    assert (task["review_count"], len(pulls(stage_of_agents, task_id))) == (1, 1)
    assert b"turn.completed" in log_of(stage_of_agents, task_id, 1)
    with stage_of_agents.stage.fleet.engine.begin() as conn:
        receipt = views.receipt_of(conn, task_id)
    assert receipt is not None
    assert receipt["pull_request"]["merged_by"] == "reviewer"
    assert len(receipt["commits"]) == 2
    assert names.environ["FLEET_FORGE_TOKEN"] not in json.dumps(receipt)


def test_the_table_of_errors_has_every_kind_with_its_status() -> None:
    told = dict(re.findall(r"^\| `(\w+)` \| (\d+) \|", PAGE, re.MULTILINE))
    assert told == {kind: str(status) for kind, status in STATUS.items()}
