"""Figures: counted without a library, written as Prometheus reads them."""

from __future__ import annotations

import math

from prometheus_client.parser import text_string_to_metric_families

from rbee.daemonkit.prometheus import exposition
from rbee.observe import metrics
from rbee.observe.metrics import Histogram


def samples(text: bytes) -> dict[tuple[str, tuple[str, ...]], float]:
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def test_an_observation_counts_in_its_bucket() -> None:
    """A value at an edge belongs below it, one above all edges to the last bucket."""
    histogram = Histogram("test_seconds", "Test.", (1.0, 2.0))

    for value in (0.5, 1.0, 1.5, 99.0):
        histogram.observe(value)

    assert histogram.values[()] == ([2, 1, 1], [102.0])


def test_what_is_counted_is_written() -> None:
    """Counters, histograms and gauges come out as Prometheus' own parser reads them."""
    before = samples(exposition("worker", {})[0])
    metrics.WORKER_TOKENS.add(7)
    metrics.WORKER_GENERATIONS.add(1, "stop")
    metrics.WORKER_FIRST_TOKEN.observe(0.02)
    metrics.WORKER_FIRST_TOKEN.observe(1000)

    after = samples(exposition("worker", {metrics.WORKER_LOAD: 1.5, metrics.WORKER_SLOTS: {("yes",): 3}})[0])

    def more(name: str, *labels: str) -> float:
        return after[name, labels] - before.get((name, labels), 0.0)

    assert more("rbee_worker_generated_tokens_total") == 7
    assert more("rbee_worker_generations_total", "stop") == 1
    assert more("rbee_worker_time_to_first_token_seconds_bucket", "0.01") == 0
    assert more("rbee_worker_time_to_first_token_seconds_bucket", "0.025") == 1
    assert more("rbee_worker_time_to_first_token_seconds_bucket", "+Inf") == 2
    assert math.isclose(more("rbee_worker_time_to_first_token_seconds_sum"), 1000.02)
    assert after["rbee_worker_load_seconds", ()] == 1.5
    assert after["rbee_worker_slots", ("yes",)] == 3


def test_a_daemon_gives_its_own_figures() -> None:
    """A worker says nothing of tasks, and a queen nothing of a worker's tokens."""
    assert b"rbee_queen_" not in exposition("worker", {})[0]
    assert b"rbee_worker_" not in exposition("queen", {})[0]


def test_every_figure_has_a_name_of_its_own() -> None:
    """No two figures have one name, and each says what it is."""
    all_of_them = [value for value in vars(metrics).values() if isinstance(value, metrics.Metric)]

    assert len({metric.name for metric in all_of_them}) == len(all_of_them)
    assert all(metric.help.endswith(".") for metric in all_of_them)
