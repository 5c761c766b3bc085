"""The metrics of all daemons.

They are plain numbers in this process: counting costs an addition and imports nothing. Only a request for the metrics
formats them for Prometheus (`daemonkit.prometheus`).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Final

Labels = tuple[str, ...]


class Metric:
    """A metric: its name, without the common prefix, its help text, and the names of its labels."""

    kind = ""

    def __init__(self, name: str, help_: str, labels: Labels = ()) -> None:
        self.name = f"rbee_{name}"
        self.help = help_
        self.labels = labels


class Counter(Metric):
    """A counter; `values` by label values."""

    kind = "counter"

    def __init__(self, name: str, help_: str, labels: Labels = ()) -> None:
        super().__init__(name, help_, labels)
        self.values: dict[Labels, float] = {} if labels else {(): 0.0}

    def add(self, amount: float = 1.0, *labels: str) -> None:
        """Add *amount*."""
        self.values[labels] = self.values.get(labels, 0.0) + amount


class Gauge(Metric):
    """A gauge; its values are collected at the time of the request."""

    kind = "gauge"


class Histogram(Metric):
    """A histogram; `values` has, by label values, the counts of the buckets (the last is +Inf) and the sum."""

    kind = "histogram"

    def __init__(self, name: str, help_: str, buckets: Sequence[float], labels: Labels = ()) -> None:
        super().__init__(name, help_, labels)
        self.buckets = tuple(buckets)
        self.values: dict[Labels, tuple[list[int], list[float]]] = {}
        if not labels:
            self._series(())

    def observe(self, value: float, *labels: str) -> None:
        """Add one observation."""
        counts, total = self._series(labels)
        counts[bisect_left(self.buckets, value)] += 1
        total[0] += value

    def _series(self, labels: Labels) -> tuple[list[int], list[float]]:
        return self.values.setdefault(labels, ([0] * (len(self.buckets) + 1), [0.0]))


# From a warm answer on a GPU to a cold one that downloads its model.
_WAITS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
# From 1000 tokens a second to one in two seconds.
_PER_TOKEN: Final = (0.001, 0.0025, 0.005, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 2.0)
_CANCELS: Final = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)

HTTP_REQUESTS: Final = Counter("http_requests", "Requests by route and outcome.", ("method", "route", "status"))
HTTP_SECONDS: Final = Histogram(
    "http_request_seconds", "Time from the request to the last byte of the response.", _WAITS, ("route",)
)

WORKER_GENERATIONS: Final = Counter("worker_generations", "Generations by outcome.", ("outcome",))
WORKER_PROMPT_TOKENS: Final = Counter("worker_prompt_tokens", "Prompt tokens.")
WORKER_CACHED_TOKENS: Final = Counter("worker_prompt_tokens_cached", "Prompt tokens that were in the cache.")
WORKER_TOKENS: Final = Counter("worker_generated_tokens", "Generated tokens.")
WORKER_DRAFTED: Final = Counter("worker_drafted_tokens", "Speculated tokens.")
WORKER_ACCEPTED: Final = Counter("worker_drafted_tokens_accepted", "Speculated tokens that were accepted.")
WORKER_FIRST_TOKEN: Final = Histogram(
    "worker_time_to_first_token_seconds", "Time from the request to the first token.", _WAITS
)
WORKER_PER_TOKEN: Final = Histogram(
    "worker_time_per_output_token_seconds", "Mean time between the tokens of a generation.", _PER_TOKEN
)
WORKER_CANCEL: Final = Histogram("worker_cancel_seconds", "Time from a cancellation to the free slot.", _CANCELS)
WORKER_SLOTS: Final = Gauge("worker_slots", "Slots by whether they are free.", ("free",))
WORKER_LOAD: Final = Gauge("worker_load_seconds", "Load time of the model.")
WORKER_MEMORY: Final = Gauge("worker_memory_bytes", "Resident memory of the process.")
WORKER_CACHE: Final = Gauge("worker_cached_tokens", "Tokens in the caches of all slots.")

QUEEN_TASKS: Final = Counter("queen_tasks", "Tasks by outcome and client.", ("outcome", "client"))
QUEEN_PLACEMENTS: Final = Counter("queen_placements", "Placement decisions.", ("decision",))
QUEEN_EVICTIONS: Final = Counter("queen_evictions", "Idle workers ended to make room for another model.")
QUEEN_FALLBACKS: Final = Counter("queen_fallbacks", "Requests that turned to another model, by its name.", ("model",))
QUEEN_WAIT: Final = Histogram("queen_task_wait_seconds", "Time from a task's arrival to its start on a worker.", _WAITS)
QUEEN_USAGE_REQUESTS: Final = Counter(
    "queen_usage_requests", "Requests that a worker answered, by client and by the model's name.", ("client", "model")
)
QUEEN_USAGE_TOKENS: Final = Counter(
    "queen_usage_tokens",
    "Tokens of prompts, of these cached, and of answers, by client and by the model's name.",
    ("client", "model", "kind"),
)
QUEEN_USAGE_DEVICE: Final = Counter(
    "queen_usage_device_seconds",
    "Seconds for which engines computed, by client and by the model's name.",
    ("client", "model"),
)
QUEEN_USAGE_JOULES: Final = Counter(
    "queen_usage_joules",
    "Shares of what devices that tell took, by client and by the model's name.",
    ("client", "model"),
)
QUEEN_HIVES: Final = Gauge("queen_hives", "Hives by whether their control channel is connected.", ("connected",))
QUEEN_NODES: Final = Gauge("queen_node_connected", "1 where the control channel to a node's hive is open.", ("node",))
QUEEN_WORKERS: Final = Gauge("queen_workers", "Workers by node and state.", ("node", "state"))
QUEEN_SLOTS: Final = Gauge("queen_slots", "Slots of the fleet's workers by node and whether free.", ("node", "free"))
QUEEN_WAITING: Final = Gauge("queen_tasks_waiting", "Tasks that wait for a slot.")
QUEEN_RUNNING: Final = Gauge("queen_tasks_running", "Tasks that are running or waiting.")

HIVE_STARTS: Final = Counter("hive_workers_started", "Workers started.")
HIVE_ENDS: Final = Counter("hive_workers_ended", "Workers that exited, by whether they were stopped.", ("wanted",))
HIVE_WORKERS: Final = Gauge("hive_workers", "Workers by state.", ("state",))
HIVE_SLOTS: Final = Gauge("hive_slots", "Slots of all workers by whether they are free.", ("free",))
HIVE_LOADS: Final = Counter("hive_model_loads", "Model loads by outcome.", ("outcome",))
HIVE_LOAD_SECONDS: Final = Histogram(
    "hive_model_load_seconds", "Time from a worker's start to its loaded model.", _WAITS
)
HIVE_EVICTIONS: Final = Counter("hive_evictions", "Idle workers stopped to free their memory.")
HIVE_DOWNLOADS: Final = Counter("hive_downloads", "Model downloads by outcome.", ("outcome",))
HIVE_DOWNLOADED: Final = Counter("hive_downloaded_bytes", "Downloaded bytes of models.")
HIVE_SHARED: Final = Counter("hive_shared_bytes", "Bytes of models sent to other hives.")
HIVE_DOWNLOADING: Final = Gauge("hive_downloads_running", "Model downloads in progress.")
HIVE_MEMORY: Final = Gauge(
    "hive_device_memory_bytes", "Device memory: total, used and free.", ("backend", "device", "kind")
)
HIVE_DISK: Final = Gauge("hive_disk_bytes", "The disk that models are on: total and free.", ("kind",))
HIVE_QUEENS: Final = Gauge("hive_queens_connected", "Queens with an open control channel.")
HIVE_QUARANTINED: Final = Gauge("hive_quarantined", "Models and devices in quarantine.", ("kind",))

COUNTED: Final[tuple[Counter | Histogram, ...]] = tuple(
    value for value in list(globals().values()) if isinstance(value, Counter | Histogram)
)
