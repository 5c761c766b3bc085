"""Describe the models of the fleet: what is known of each, and whether it is loaded. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING, Final, Literal

from rbee.contracts.devices import Backend
from rbee.contracts.workers import WorkerInfo, WorkerState
from rbee.daemonkit.model_lists import ListedModel
from rbee.queen.hive import Hive
from rbee.queen.registry import Registry

if TYPE_CHECKING:
    from rbee.contracts.served import ServedModel

_BEGINNING: Final = (WorkerState.STARTING, WorkerState.LOADING)


class FleetModels:
    """The models of the fleet as it is now, by their references.

    Args:
        starting: whether a worker of a model is being started, of which no hive tells yet.
    """

    def __init__(self, registry: Registry, starting: Callable[[str], bool]) -> None:
        self._registry = registry
        self._starting = starting

    def listed(
        self, name: str, spellings: Collection[str], *, created: float, served: ServedModel | None = None
    ) -> ListedModel:
        """Describe the model with the references *spellings*, as far as the hives tell of it.

        Args:
            name: what it is listed by.
            created: when it came to be, where no hive says so.
            served: the declared model that has the name.
        """
        entries = [found for reference in spellings for found in self._registry.models.entries(reference)]
        workers = self.workers(spellings, served)
        declared = served.context_length if served is not None else None
        serving = [worker.context_length for worker in workers if worker.state.serves]
        startable = [_least((self._hive(node).context_length, entry.context_length)) for node, entry in entries]
        entry = entries[0][1] if entries else None
        return ListedModel(
            name,
            created if entry is None else entry.downloaded_at_unix,
            state=_state(workers, starting=any(map(self._starting, spellings if served is None else [served.name]))),
            size_bytes=None if entry is None else entry.size_bytes,
            sha256=None if entry is None else entry.sha256,
            architecture=None if entry is None else entry.architecture,
            quantization=None if entry is None else entry.quantization,
            context_length=declared or _least(serving or startable),
            train_context=None if entry is None else entry.context_length,
            capabilities=next(filter(None, map(self._registry.capabilities, spellings)), ())
            or tuple(() if entry is None else entry.capabilities),
        )

    def residence(self, spellings: Collection[str], served: ServedModel | None = None) -> tuple[float | None, int]:
        """Return until when the last worker of a model stays if nobody uses it, and the bytes that all take of GPUs.

        The time is in seconds since the epoch; None where it is not known.
        """
        workers = [worker for worker in self.workers(spellings, served) if worker.state.serves]
        stays = [
            (worker, self._hive(worker.node).idle_timeout_s if worker.keep is None else worker.keep)
            for worker in workers
        ]
        if any(keep == "always" for _, keep in stays):
            ends = []
        else:
            ends = [worker.last_active_unix + keep for worker, keep in stays if isinstance(keep, float | int)]
        on_gpus = sum(worker.memory_bytes or 0 for worker in workers if worker.backend is not Backend.CPU)
        return max(ends, default=None), on_gpus

    def workers(self, spellings: Collection[str], served: ServedModel | None = None) -> list[WorkerInfo]:
        """List the workers of the model, in whatever state; of a declared one those that were started for it."""
        workers = [filed.link.worker for filed in self._registry.index.of(spellings)]
        found = [worker for worker in workers if served is None or worker.served == served.name]
        return sorted(found, key=lambda worker: (worker.node, worker.worker_id))

    def _hive(self, node: str) -> Hive:
        hive = self._registry.hive(node)
        assert hive is not None, f"{node} has models or workers, and is not registered"
        return hive


def _state(workers: Iterable[WorkerInfo], *, starting: bool) -> Literal["unloaded", "loading", "loaded"]:
    states = {worker.state for worker in workers}
    if any(state.serves for state in states):
        return "loaded"
    return "loading" if starting or states.intersection(_BEGINNING) else "unloaded"


def _least(lengths: Iterable[int | None]) -> int | None:
    return min((length for length in lengths if length), default=None)
