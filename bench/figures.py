"""How a figure is printed: one JSON line with name, value, unit, against what, ratio, runs."""

import json
import statistics
from collections.abc import Sequence


def figure(name: str, value: float, unit: str, against: float | None = None, runs: int = 1) -> None:
    """Print one figure; `against` is what was measured beside it in the same run."""
    ratio = round(value / against, 3) if against else None
    line = {
        "name": name,
        "value": round(value, 2),
        "unit": unit,
        "against": against and round(against, 2),
        "ratio": ratio,
        "runs": runs,
    }
    print(json.dumps(line), flush=True)


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which `share` (0 to 1) of the values lie."""
    if len(values) == 1:
        return values[0]
    return statistics.quantiles(values, n=100, method="inclusive")[round(share * 100) - 1]
