"""Hooks from where they are declared to what people see of them; what they do on a host: tests/workers/supervisor/test_hooks.py."""

from pathlib import Path

from click.testing import CliRunner

from app.cli import tasks
from app.domain.task import State
from app.logs import set_up_logs
from tests import builders, servers
from tests.conftest import FakeClock
from tests.workers.test_agit import CODER, work_to_the_end
from tests.workshop import WIDGETS, Workshop

OWN = '[hooks]\nbefore_prepare = ["echo the repository"]\nafter_deliver = ["echo nobody to tell; exit 3"]\n'


def test_one_that_fails_after_the_delivery_warns_and_the_pull_request_stands(
    workshop: Workshop, tmp_path: Path, clock: FakeClock, database: str
) -> None:
    rule = builders.declared()["repositories"][0] | {"hooks": {"before_prepare": ["echo the operator"]}}
    host = builders.a_host(work_dir=str(tmp_path / "host"))
    with workshop.fleet.engine.begin() as conn:
        builders.apply(conn, forge_url=workshop.forge.url, repositories=[rule], hosts=[host], clis={"coder": CODER})
    workshop.forge.commit(WIDGETS, "alice", "main", {".fleet.toml": OWN}, "Hooks")
    number = workshop.placed()
    work_to_the_end(workshop, clock)
    task = workshop.task(number)
    assert (task.state, task.reason) == (State.REVIEW_PENDING, None)
    hooks = [(note["hook"], note["tail"]) for note in (workshop.run(number).result or {})["hooks"]]
    assert hooks[:2] == [("before_prepare", "the operator\n"), ("before_prepare", "the repository\n")]
    environ = servers.config(DATABASE_URL=database, REDIS_URL=servers.valkey_url())
    shown = CliRunner().invoke(tasks.task, ["show", task.task_id], env=environ).output
    set_up_logs(workshop.fleet.mask)  # the command has set them up on a stream that is closed now
    assert "1 hook after_deliver `echo nobody to tell; exit 3` ended with 3: nobody to tell" in " ".join(shown.split())
