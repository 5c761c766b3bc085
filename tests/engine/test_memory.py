"""The estimate of a load's memory against what the real worker takes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.support.memory_truth import CASES, Case, measure

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells the most that a process held"),
]
MOST_ABOVE = 0.15


@pytest.mark.parametrize("case", [case for case in CASES if case.context < 8192], ids=lambda case: case.name)
def test_the_estimate_is_never_below_and_at_most_15_percent_above(case: Case, tmp_path: Path) -> None:
    """What the hive expects a worker to take is at least what it takes, and at most 15 % more."""
    truth = measure(case, tmp_path)

    assert 0 <= truth.error <= MOST_ABOVE, f"expected {truth.expected}, took {truth.taken}: {truth.error:+.1%}"
