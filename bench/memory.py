"""Show how near the estimate of a load's memory is to what a worker takes: `python -m bench memory`."""

from __future__ import annotations

import tempfile
from pathlib import Path

from bench.rows import Row
from tests.support.memory_truth import CASES, Truth, measure

_MIB = 1024 * 1024


def memory(_rounds: int) -> list[Row]:
    """Expected over taken, for each model and way to load it; once each, because it does not vary."""
    truths = []
    with tempfile.TemporaryDirectory(prefix="rbee-bench-") as root:
        for number, case in enumerate(CASES):
            folder = Path(root) / str(number)
            folder.mkdir()
            truths.append(measure(case, folder))
    print(error_table(truths))
    return [
        Row(f"memory_{_slug(each)}", each.expected / _MIB, each.taken / _MIB, "taken", "MiB", "<=1.15")
        for each in truths
    ]


def error_table(truths: list[Truth]) -> str:
    """Lay out what was expected and what was taken."""
    lines = [f"{'model, slots x context':36}  {'expected':>12}  {'taken':>12}  {'error':>7}"]
    lines += [
        f"{each.case.name:36}  {each.expected / _MIB:8.1f} MiB  {each.taken / _MIB:8.1f} MiB  {each.error:+7.1%}"
        for each in truths
    ]
    return "\n".join(lines)


def _slug(truth: Truth) -> str:
    return truth.case.name.replace(" x ", "x").replace(", ", "_").replace(" ", "_").lower()
