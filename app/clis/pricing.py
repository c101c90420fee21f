"""Prices models: what an answer of a CLI cost, from fleet.toml's prices or the shipped file."""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from app.clis.catalog import Template
from app.domain.run import Usage

PRICES = Path(__file__).with_name("prices.toml")


_DAY = re.compile(r"-\d{8}\Z")


@cache
def price_table() -> Mapping[str, Any]:
    return tomllib.loads(PRICES.read_text())


def price_of(model: str, own: Mapping[str, Any]) -> dict[str, Any]:
    """The price of a model, whole: fleet.toml's `own`, else the dated table's; empty where none is known. CLIs may tell
    a model's name with the day that it is of."""
    known = price_table()["models"] | own
    price = known.get(model) or known.get(_DAY.sub("", model))
    return {"cached": price["input"], **price, "as_of": str(price.get("as_of", "fleet.toml"))} if price else {}


def limits_dollars(budget: Mapping[str, Any] | None) -> bool:
    return any("dollars" in amount for amount in (budget or {}).values())


def missing_price(name: str, *said: Mapping[str, Any] | None) -> str | None:
    """Why a cap in dollars cannot be kept on a CLI of which this is `said`, by its declaration first, by a rule and a
    host after it; None where its dollars are known."""
    told: dict[str, Any] = {key: value for one in said for key, value in (one or {}).items()}
    base, model = (said[0] or {}) if said else {}, told.get("model")
    preset = base.get("preset") or ("" if base.get("argv") else name)
    if told.get("price") or told.get("reports_cost") or preset in price_table()["reports"]:
        return None
    named = f"what the model {model!r} of the CLI {name!r} costs" if model else f"what the CLI {name!r} costs"
    mend = f'give its price in [prices."{model}"]' if model else (
        f"name its model in [clis.{name}] and the model's price in [prices]"
    )  # fmt: skip
    return (
        f"has a budget in dollars, and nobody knows {named}: {mend}, or set reports_cost in [clis.{name}] where it "
        "tells dollars itself"
    )


NOTHING: Mapping[str, Any] = MappingProxyType({})


def add_cost(usage: Usage, template: Template, by_model: Mapping[str, Usage] = NOTHING) -> tuple[Usage, str | None]:
    """With dollars reckoned where the CLI tells none, and who reckoned them: from the prices of the models of which it
    says that they answered, the template's `prices` first; where one has none or it says nothing, of its `model`."""
    if usage.cost_usd is not None or usage.input_tokens is None:
        return usage, None
    told = {model: price_of(model, template.get("prices") or {}) for model in by_model}
    if not told or not all(told.values()):
        told, by_model = {str(template.get("model")): template.get("price") or {}}, {}
    if not all(told.values()):
        return usage, None
    used = by_model if len(told) > 1 else dict.fromkeys(told, usage)
    cost = sum(_cost(used[model], price) for model, price in told.items())
    named = " and ".join(f"{model}, {price['as_of']}" for model, price in told.items())
    return replace(usage, cost_usd=cost / 1e6), f"the price of {named}"


def _cost(used: Usage, price: Mapping[str, Any]) -> float:
    """In millionths of a dollar."""
    input_, cached = used.input_tokens or 0, used.cached_tokens or 0
    fresh = max(0, input_ - cached)
    return float(fresh * price["input"] + cached * price["cached"] + (used.output_tokens or 0) * price["output"])
