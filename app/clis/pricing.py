"""Estimates the dollars of a run from the price of each model that answered."""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from app.clis.template import CliTemplate, Table
from app.domain.run import Usage

PRICES = Path(__file__).with_name("prices.toml")
_DATE_SUFFIX = re.compile(r"-\d{8}\Z")
_NO_MODELS: Mapping[str, Usage] = MappingProxyType({})


def add_cost(
    usage: Usage, template: CliTemplate, by_model: Mapping[str, Usage] = _NO_MODELS
) -> tuple[Usage, str | None]:
    """The usage with dollars, and their source. Unchanged, with None, if the CLI counts dollars or no price is known.

    `by_model` is the usage of each model that answered, if the CLI says so. If one of them has no price, or the CLI
    names none, the price of the template's `model` is used for all.
    """
    if usage.cost_usd is not None or usage.input_tokens is None:
        return usage, None
    prices = {model: price_of(model, template.prices) for model in by_model}
    if not prices or not all(prices.values()):
        prices, by_model = {str(template.model): template.price}, _NO_MODELS
    if not all(prices.values()):
        return usage, None
    used = by_model if len(prices) > 1 else dict.fromkeys(prices, usage)
    cost = sum(_cost(used[model], price) for model, price in prices.items())
    source = " and ".join(f"{model}, {price['as_of']}" for model, price in prices.items())
    return replace(usage, cost_usd=cost / 1e6), f"the price of {source}"


def price_of(model: str, own: Mapping[str, Table]) -> Table:
    """{input, cached, output, as_of} of a model, from fleet.toml's `own` prices, else prices.toml. Empty if unknown.

    A model's name may end in a date (`-20251101`); the price without the date is used if there is no exact one.
    """
    known = price_table()["models"] | own
    price = known.get(model) or known.get(_DATE_SUFFIX.sub("", model))
    return {"cached": price["input"], **price, "as_of": str(price.get("as_of", "fleet.toml"))} if price else {}


@cache
def price_table() -> Table:
    return tomllib.loads(PRICES.read_text())


def limits_dollars(budget: Table | None) -> bool:
    return any("dollars" in amount for amount in (budget or {}).values())


def missing_price(name: str, *tables: Table | None) -> str | None:
    """Why a budget in dollars cannot be kept with the CLI `name`; None if its cost is known.

    `tables` are its declaration, then the changes by the repository's rule and the host.
    """
    merged: dict[str, Any] = {key: value for table in tables for key, value in (table or {}).items()}
    declared, model = (tables[0] or {}) if tables else {}, merged.get("model")
    preset = declared.get("preset") or ("" if declared.get("argv") else name)
    if merged.get("price") or merged.get("reports_cost") or preset in price_table()["reports"]:
        return None
    if model:
        what, remedy = f"the model {model!r} of the CLI {name!r}", f'give its price in [prices."{model}"]'
    else:
        what = f"the CLI {name!r}"
        remedy = f"name its model in [clis.{name}] and the model's price in [prices]"
    return (
        f"has a budget in dollars, but the price of {what} is unknown: {remedy}, or set reports_cost in "
        f"[clis.{name}] if the CLI reports dollars itself"
    )


def _cost(used: Usage, price: Table) -> float:
    """In millionths of a dollar."""
    input_, cached = used.input_tokens or 0, used.cached_tokens or 0
    fresh = max(0, input_ - cached)
    return float(fresh * price["input"] + cached * price["cached"] + (used.output_tokens or 0) * price["output"])
