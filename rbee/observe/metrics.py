"""The figures that daemons keep, each named here once.

They are plain numbers of this process: to count costs an addition and loads nothing. Only who asks a daemon for its
figures has them written for Prometheus (`daemonkit.exposition`).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Final

Labels = tuple[str, ...]


class Metric:
    """A figure with its name, without a prefix that all have, and the names of its labels."""

    kind = ""

    def __init__(self, name: str, help_: str, labels: Labels = ()) -> None:
        self.name = f"rbee_{name}"
        self.help = help_
        self.labels = labels


class Counter(Metric):
    """Something that is counted; `values` by the labels' values."""

    kind = "counter"

    def __init__(self, name: str, help_: str, labels: Labels = ()) -> None:
        super().__init__(name, help_, labels)
        self.values: dict[Labels, float] = {} if labels else {(): 0.0}

    def add(self, amount: float = 1.0, *labels: str) -> None:
        """Count *amount* more."""
        self.values[labels] = self.values.get(labels, 0.0) + amount


class Gauge(Metric):
    """Something that is looked at when it is asked for: its values are given then."""

    kind = "gauge"


class Histogram(Metric):
    """Times; `values` has by the labels' values the counts by bucket, the last for all above, and the sum."""

    kind = "histogram"

    def __init__(self, name: str, help_: str, buckets: Sequence[float], labels: Labels = ()) -> None:
        super().__init__(name, help_, labels)
        self.buckets = tuple(buckets)
        self.values: dict[Labels, tuple[list[int], list[float]]] = {}
        if not labels:
            self._of(())

    def observe(self, value: float, *labels: str) -> None:
        """Add one observation."""
        counts, total = self._of(labels)
        counts[bisect_left(self.buckets, value)] += 1
        total[0] += value

    def _of(self, labels: Labels) -> tuple[list[int], list[float]]:
        return self.values.setdefault(labels, ([0] * (len(self.buckets) + 1), [0.0]))


# From a warm answer on a GPU to a cold one that fetches its model.
_WAITS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
# From 1000 tokens a second to one in two seconds.
_PER_TOKEN: Final = (0.001, 0.0025, 0.005, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 2.0)
_CANCELS: Final = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)

HTTP_REQUESTS: Final = Counter("http_requests", "Requests by route and outcome.", ("method", "route", "status"))
HTTP_SECONDS: Final = Histogram("http_request_seconds", "From request to the answer's last byte.", _WAITS, ("route",))

WORKER_GENERATIONS: Final = Counter("worker_generations", "Generations by how they ended.", ("outcome",))
WORKER_PROMPT_TOKENS: Final = Counter("worker_prompt_tokens", "Tokens of prompts.")
WORKER_CACHED_TOKENS: Final = Counter("worker_prompt_tokens_cached", "Tokens of prompts that were in the cache.")
WORKER_TOKENS: Final = Counter("worker_generated_tokens", "Tokens given.")
WORKER_DRAFTED: Final = Counter("worker_drafted_tokens", "Tokens that were guessed.")
WORKER_ACCEPTED: Final = Counter("worker_drafted_tokens_accepted", "Guessed tokens that came true.")
WORKER_FIRST_TOKEN: Final = Histogram("worker_time_to_first_token_seconds", "From request to first token.", _WAITS)
WORKER_PER_TOKEN: Final = Histogram(
    "worker_time_per_output_token_seconds", "Between the tokens of a generation, on average.", _PER_TOKEN
)
WORKER_CANCEL: Final = Histogram("worker_cancel_seconds", "From the wish to cancel to the free slot.", _CANCELS)
WORKER_SLOTS: Final = Gauge("worker_slots", "Slots, by whether they are free.", ("free",))
WORKER_LOAD: Final = Gauge("worker_load_seconds", "How long the model took to load.")
WORKER_MEMORY: Final = Gauge("worker_memory_bytes", "Memory that the process holds.")
WORKER_CACHE: Final = Gauge("worker_cached_tokens", "Tokens in the cache of all slots.")

QUEEN_TASKS: Final = Counter("queen_tasks", "Tasks by how they ended.", ("outcome",))
QUEEN_PLACEMENTS: Final = Counter("queen_placements", "Decisions where a task runs.", ("decision",))
QUEEN_WAIT: Final = Histogram("queen_task_wait_seconds", "From task to the worker that took it.", _WAITS)
QUEEN_TOKENS: Final = Counter("queen_relayed_tokens", "Tokens passed on.")
QUEEN_HIVES: Final = Gauge("queen_hives", "Hives by whether their channel is up.", ("connected",))
QUEEN_WORKERS: Final = Gauge("queen_workers", "Workers by node and state.", ("node", "state"))
QUEEN_SLOTS: Final = Gauge("queen_slots", "Slots of the fleet's workers, by node and whether free.", ("node", "free"))
QUEEN_WAITING: Final = Gauge("queen_tasks_waiting", "Tasks in line for a slot.")
QUEEN_RUNNING: Final = Gauge("queen_tasks_running", "Tasks accepted and not yet ended.")

HIVE_STARTS: Final = Counter("hive_workers_started", "Workers started.")
HIVE_ENDS: Final = Counter("hive_workers_ended", "Workers that ended, by whether they were to.", ("wanted",))
HIVE_WORKERS: Final = Gauge("hive_workers", "Workers by state.", ("state",))
HIVE_SLOTS: Final = Gauge("hive_slots", "Slots of all workers, by whether they are free.", ("free",))
HIVE_LOADS: Final = Counter("hive_model_loads", "Workers that had their model loaded, or ended before.", ("outcome",))
HIVE_LOAD_SECONDS: Final = Histogram("hive_model_load_seconds", "From a worker's start to its loaded model.", _WAITS)
HIVE_EVICTIONS: Final = Counter("hive_evictions", "Workers stopped because nobody used them, to have their memory.")
HIVE_DOWNLOADS: Final = Counter("hive_downloads", "Downloads of models by how they ended.", ("outcome",))
HIVE_DOWNLOADED: Final = Counter("hive_downloaded_bytes", "Bytes of models fetched, without those that were there.")
HIVE_DOWNLOADING: Final = Gauge("hive_downloads_running", "Models on their way here.")
HIVE_MEMORY: Final = Gauge(
    "hive_device_memory_bytes", "Memory by device: total, used and free.", ("backend", "device", "kind")
)
HIVE_QUEENS: Final = Gauge("hive_queens_connected", "Queens with an open channel.")
HIVE_QUARANTINED: Final = Gauge("hive_quarantined", "Models and devices that are not used for now.", ("kind",))

COUNTED: Final[tuple[Counter | Histogram, ...]] = tuple(
    value for value in list(globals().values()) if isinstance(value, Counter | Histogram)
)
