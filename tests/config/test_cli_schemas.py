"""CLIs, budgets and prices in fleet.toml: a budget in dollars needs a price, and values that cannot work are refused."""

from pathlib import Path

import pytest

from tests.config.toml import FORGE, HOST, declared, faults_of


class TestClisAndBudgets:
    RULE = FORGE + '[[repositories]]\nforge = "main"\nname = "team/app"\ncli = "mine"\n'

    def test_a_budget_in_dollars_needs_a_known_price(self, tmp_path: Path) -> None:
        toml = self.RULE + "budget = { task = { dollars = 5.0 } }\n"
        (said,) = faults_of(tmp_path, toml + '[clis.mine]\nargv = ["x"]\n')
        assert "budget in dollars" in said and "[clis.mine]" in said
        prices = 'model = "m"\n[prices.m]\ninput = 1.0\noutput = 2.0\n'
        for known in ('model = "gpt-5"\n', "reports_cost = true\n", prices):
            assert declared(tmp_path, toml + '[clis.mine]\nargv = ["x"]\n' + known)
        assert declared(tmp_path, toml + '[clis.mine]\npreset = "claude"\n')

    def test_a_budget_in_dollars_needs_the_price_of_whoever_takes_over_at_last(self, tmp_path: Path) -> None:
        chain = "".join(
            f'[clis.{name}]\npreset = "claude"\nfailover = ["{other}"]\n'
            for name, other in (("mine", "two"), ("two", "three"))
        )
        toml = self.RULE + "budget = { task = { dollars = 5.0 } }\n" + chain + '[clis.three]\nargv = ["x"]\n'
        (said,) = faults_of(tmp_path, toml)
        assert "[clis.three]" in said
        (said,) = faults_of(tmp_path, toml.replace('cli = "mine"\n', ""))
        assert "[clis.three]" in said

    def test_a_budget_in_dollars_needs_the_price_of_each_model_that_a_repository_or_a_host_chooses(
        self, tmp_path: Path
    ) -> None:
        toml = self.RULE + 'budget = { task = { dollars = 5.0 } }\nclis = { mine = { model = "m" } }\n'
        toml += '[clis.mine]\npreset = "codex"\nmodel = "gpt-5"\n'
        (said,) = faults_of(tmp_path, toml)
        assert "the model 'm' of the CLI 'mine'" in said and '[prices."m"]' in said
        host = HOST.replace('"codex"', '"mine"') + 'clis = { mine = { model = "h" } }\n'
        (said,) = faults_of(tmp_path, toml + host)
        assert "the model 'h'" in said, "what the host says counts last"
        assert declared(tmp_path, toml + host + "[prices.h]\ninput = 1.0\noutput = 2.0\n")
        assert declared(tmp_path, toml.replace('"codex"', '"claude"') + host), "it tells its dollars itself"

    def test_a_model_that_is_chosen_for_a_repository_or_a_host_has_its_own_price(self, tmp_path: Path) -> None:
        toml = self.RULE + 'clis = { mine = { model = "gpt-5-mini" }, codex = { model = "m" } }\n' + HOST
        fleet = declared(tmp_path, toml + 'clis = { codex = { model = "gpt-5" }, mine = { timeout_secs = 9 } }\n[clis.mine]\nargv = ["x"]\nmodel_flag = ["-m", "{model}"]\n')  # fmt: skip
        (rule,), (host,) = fleet["repositories"], fleet["hosts"]
        assert (rule["clis"]["mine"]["price"]["input"], rule["clis"]["codex"]["price"]) == (0.25, {})
        assert host["clis"]["codex"]["price"]["input"] == 1.25 and "price" not in host["clis"]["mine"]

    def test_a_price_goes_with_its_day(self, tmp_path: Path) -> None:
        clis = declared(
            tmp_path,
            '[clis.a]\nargv = ["x"]\nmodel = "gpt-5"\n[clis.b]\nargv = ["x"]\nmodel = "m"\n[prices.m]\ninput = 1.0\noutput = 2.0\n',
        )["clis"]
        assert clis["a"]["price"]["as_of"] == "2025-11-01" and clis["b"]["price"] == {
            "input": 1.0,
            "cached": 1.0,
            "output": 2.0,
            "as_of": "fleet.toml",
        }

    @pytest.mark.parametrize(
        ("toml", "fault"),
        [
            ('[clis.x]\nargv = ["x"]\nfailover = ["x"]\n', "'x' fails over to itself"),
            ('[clis.x]\nargv = ["x"]\nfailover = ["a","b","c","d","e","f"]\n', "clis.x.failover"),
            ('[clis.x]\nargv = ["x"]\napart = "no"\n', "clis.x.apart"),
            (FORGE + '[[repositories]]\nforge = "main"\nname = "a/b"\nbudget = { run = { token = 5 } }\n', "budget.run.token"),
            (FORGE + '[[repositories]]\nforge = "main"\nname = "a/b"\nbudget = { run = { tokens = 0 } }\n', "budget.run.tokens"),
            (FORGE + '[[repositories]]\nforge = "main"\nname = "a/b"\nhooks = { before_start = ["x"] }\n', "hooks.before_start"),
            (FORGE + '[[repositories]]\nforge = "main"\nname = "a/b"\ncommit = { trailers = ["x"] }\n', "commit.trailers"),
        ],
    )  # fmt: skip
    def test_what_cannot_hold_is_said(self, tmp_path: Path, toml: str, fault: str) -> None:
        assert any(fault in said for said in faults_of(tmp_path, toml))
