"""What docs/clis.md tells people to do works as it stands there."""

import re
from pathlib import Path

from app.clis import catalog
from app.clis.parser import Setting
from app.config.fleet_toml import read_toml
from app.domain.run import Usage, Verdict

TOP = Path(__file__).parents[1]
PAGE = (TOP / "docs" / "clis.md").read_text()


def test_the_cli_of_ones_own_reads_its_output(tmp_path: Path) -> None:
    toml = tmp_path / "fleet.toml"
    toml.write_text(re.search(r"```toml\n(.*?)```", PAGE, re.DOTALL)[1].replace("\n   ", "\n"))  # type: ignore[index]
    template = catalog.template_of("mytool", read_toml(toml)["clis"]["mytool"])
    parser = catalog.make_parser(template.parser, Setting(reading=template.reading))
    parser.feed(b'{"type": "done", "ok": true, "session": "s", "answer": "Yes.", "usage": {"in": 5, "out": 2}}')
    outcome = parser.finish(0)
    assert (outcome.verdict, outcome.session_id, outcome.final_text) == (Verdict.SUCCEEDED, "s", "Yes.")
    assert outcome.usage == Usage(5, None, 2)


def test_every_preset_is_named() -> None:
    assert all(name in PAGE for name in catalog.presets())


def test_the_example_that_is_deployed_is_accepted() -> None:
    assert read_toml(TOP / "deploy" / "fleet.example.toml")["clis"]["claude"]["failover"] == ["mytool"]
