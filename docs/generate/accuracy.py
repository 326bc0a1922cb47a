"""How far the experiments of docs/examples are from the published values beside which they are computed."""

from __future__ import annotations

import math
import re
from pathlib import Path

EXAMPLES = Path(__file__).parent.parent / "examples"
BEGIN, END = "<!-- table: made by `make outputs` -->", "<!-- end of table -->"
"""What encloses the table in a page."""


def accuracy_table() -> str:
    """A row for each experiment with published values: how many there are, and the largest difference by quantity."""
    rows = ["| experiment | published values | largest difference |", "|---|---|---|", *map(_row, _experiments())]
    return "\n".join(rows)


def _experiments() -> list[Path]:
    return [path for path in sorted(EXAMPLES.glob("*.yaml")) if "\nreference:" in path.read_text(encoding="utf-8")]


def _row(path: Path) -> str:
    from explorer.experiment import Experiment, run_experiment

    spec = Experiment.load(path)
    outcome = run_experiment(spec)
    parts, count = [], 0
    for name in outcome.references:
        sizes = [abs(value) for value in outcome.difference(name).tolist() if not math.isnan(value)]
        count += len(sizes)
        if sizes:
            parts.append(f"{spec.title(name)} {100 * max(sizes):.2g} %")
    return f"| [{path.stem}](docs/examples/{path.name}) | {count} | {', '.join(parts)} |"


def with_table(text: str) -> str:
    """A page with the table as it has to be now."""
    pattern = f"{re.escape(BEGIN)}.*?{re.escape(END)}"
    return re.sub(pattern, lambda _: f"{BEGIN}\n{accuracy_table()}\n{END}", text, flags=re.DOTALL)
