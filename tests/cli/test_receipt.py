"""`fleet prompt` and `fleet receipt`: what goes into a run, and the signed proof of what came out."""

import json
from pathlib import Path

from app.domain.errors import Refused
from tests.cli.conftest import Call
from tests.workshop import WIDGETS, Workshop


def test_the_prompt_is_what_the_next_run_is_told(workshop: Workshop, call: Call) -> None:
    number = workshop.placed(body="It is off by one.")
    text = call("prompt", f"{WIDGETS}#{number}").stdout
    assert "# Fix the total" in text and "It is off by one." in text
    assert json.loads(call("prompt", f"{WIDGETS}#{number}", "--json").stdout)["hidden"] == []


def test_a_receipt_that_is_shown_can_be_verified_and_a_changed_one_not(
    workshop: Workshop, call: Call, tmp_path: Path
) -> None:
    number, pull = workshop.in_review()
    workshop.merge(pull)
    workshop.converge()
    file, key = tmp_path / "receipt.json", tmp_path / "key"
    file.write_text(call("receipt", "show", f"{WIDGETS}#{number}").stdout)
    key.write_text(call("receipt", "key").stdout)
    assert call("receipt", "verify", str(file), "--key", str(key)).exit_code == 0
    file.write_text(file.read_text().replace("acme", "acmf", 1))
    assert isinstance(call("receipt", "verify", str(file), "--key", str(key)).exception, Refused)
