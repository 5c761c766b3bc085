"""Daemons are killed at random moments, under load: a short run of `make chaos`."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from tests.chaos.run import run
from tests.chaos.tally import Tally, percentile_99

pytestmark = pytest.mark.process


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_no_kill_breaks_a_promise() -> None:
    """Orphans are gone within 2 s, lists are right within 10 s, streams end in words, the next request is answered."""
    said: list[str] = []
    with tempfile.TemporaryDirectory(prefix="rbee-chaos-") as root:
        tally = run(Path(root), kills=12, seed=20, say=said.append)

    assert tally.kills.total() == 12
    assert set(tally.kills) == {"rbee-keeper", "queen-rbee", "rbee-hive", "llm-worker-rbee"}
    assert tally.streams["done"] > 0
    assert not tally.violations, tally.receipt(0)


def test_a_receipt_tells_counts_times_and_what_was_broken() -> None:
    """The receipt has the seed, the kills by kind, the times with their worst, and every broken promise."""
    tally = Tally(7)
    tally.kills.update(["queen-rbee", "rbee-hive", "rbee-hive"])
    tally.ended("done")
    for seconds in (0.001, 0.002, 0.5):
        tally.took("orphans gone", seconds)

    whole = tally.receipt(12)
    tally.broken("a stream ended in silence")

    assert "seed 7: 3 kills (1 queen-rbee, 2 rbee-hive) in 12 s" in whole
    assert "500 ms" in whole
    assert "every promise was kept" in whole
    assert "BROKEN: a stream ended in silence" in tally.receipt(12)


def test_the_99th_percentile_is_between_median_and_most() -> None:
    """Of one value it is that value, of many it is near the top."""
    assert percentile_99([3.0]) == 3.0
    assert 98 <= percentile_99([float(number) for number in range(101)]) <= 100
