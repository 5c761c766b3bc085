"""Describe the models of the fleet: what is known of each, and whether it is loaded. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable
from typing import Final, Literal

from rbee.contracts.devices import Backend
from rbee.contracts.models import CatalogEntry
from rbee.contracts.workers import WorkerInfo, WorkerState
from rbee.daemonkit.model_lists import ListedModel
from rbee.queen.registry import Hive, Registry

_BEGINNING: Final = (WorkerState.STARTING, WorkerState.LOADING)


class FleetModels:
    """The models of the fleet as it is now, by their references.

    Args:
        starting: whether a worker of a model is being started, of which no hive tells yet.
    """

    def __init__(self, registry: Registry, starting: Callable[[str], bool]) -> None:
        self._registry = registry
        self._starting = starting
        self._entries: defaultdict[str, list[tuple[Hive, CatalogEntry]]] = defaultdict(list)
        self._workers: defaultdict[str, list[tuple[Hive, WorkerInfo]]] = defaultdict(list)
        for hive in registry.hives():
            for entry in hive.models:
                self._entries[entry.reference].append((hive, entry))
            for link in hive.workers.values():
                self._workers[link.worker.model_ref].append((hive, link.worker))

    def listed(self, name: str, spellings: Collection[str], *, created: float) -> ListedModel:
        """Describe the model with the references *spellings*, as far as the hives tell of it.

        Args:
            name: what it is listed by.
            created: when it came to be, where no hive says so.
        """
        entries = [found for reference in spellings for found in self._entries.get(reference, ())]
        workers = self.workers(spellings)
        serving = [worker.context_length for worker in workers if worker.state.serves]
        startable = [_least((hive.context_length, entry.context_length)) for hive, entry in entries]
        entry = entries[0][1] if entries else None
        return ListedModel(
            name,
            created if entry is None else entry.downloaded_at_unix,
            state=_state(workers, starting=any(map(self._starting, spellings))),
            size_bytes=None if entry is None else entry.size_bytes,
            sha256=None if entry is None else entry.sha256,
            architecture=None if entry is None else entry.architecture,
            quantization=None if entry is None else entry.quantization,
            context_length=_least(serving or startable),
            train_context=None if entry is None else entry.context_length,
            capabilities=next(filter(None, map(self._registry.capabilities, spellings)), ())
            or tuple(() if entry is None else entry.capabilities),
        )

    def residence(self, spellings: Collection[str]) -> tuple[float | None, int]:
        """Return until when the last worker of a model stays if nobody uses it, and the bytes that all take of GPUs.

        The time is in seconds since the epoch; None where it is not known.
        """
        workers = [(hive, worker) for hive, worker in self._of(spellings) if worker.state.serves]
        ends = [
            worker.last_active_unix + hive.idle_timeout_s for hive, worker in workers if hive.idle_timeout_s is not None
        ]
        on_gpus = sum(worker.memory_bytes or 0 for _, worker in workers if worker.backend is not Backend.CPU)
        return max(ends, default=None), on_gpus

    def workers(self, spellings: Collection[str]) -> list[WorkerInfo]:
        """List the workers of the model, in whatever state."""
        return [worker for _, worker in self._of(spellings)]

    def _of(self, spellings: Iterable[str]) -> list[tuple[Hive, WorkerInfo]]:
        return [found for reference in spellings for found in self._workers.get(reference, ())]


def _state(workers: Iterable[WorkerInfo], *, starting: bool) -> Literal["unloaded", "loading", "loaded"]:
    states = {worker.state for worker in workers}
    if any(state.serves for state in states):
        return "loaded"
    return "loading" if starting or states.intersection(_BEGINNING) else "unloaded"


def _least(lengths: Iterable[int | None]) -> int | None:
    return min((length for length in lengths if length), default=None)
