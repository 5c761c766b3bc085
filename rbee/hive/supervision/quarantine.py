"""Decide which models and devices are quarantined, because every worker on them crashed.

Pure: time comes in as `at` (seconds of any steady clock).
A model is quarantined after three crashes in a row, wherever they were, that no single client can have caused: three
loads, or crashes while requests ran that took at least three clients to explain, each being explained by a client
whose request ran. So a client that ends workers, however often, takes the model from nobody.
A device is quarantined after such crashes of more than one model; the crashes there then do not count against those
models.
A request that was answered resets the counts of its model and its device.
When a quarantine is over, or lifted, one more try is allowed: a crash renews it at once.

Invariants: what is quarantined has crashed at least three times since its last success; a quarantine has an end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from rbee.contracts.devices import Backend

Place = tuple[Backend, int]
"""A device by backend and index."""
TRIES: Final = 3
_KEPT: Final = 32


@dataclass(frozen=True, slots=True)
class Crash:
    """A worker that ended without being stopped, or was killed because it was stuck.

    `clients` are those whose requests ran, by opaque ids; without any it was a load.
    """

    model: str
    place: Place
    reason: str
    clients: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Record:
    """The crashes in a row of a model or device, newest last, and until when it is quarantined; 0 means it is not."""

    crashes: tuple[Crash, ...] = ()
    count: int = 0
    until: float = 0.0

    @property
    def models(self) -> set[str]:
        """Return the models that crashed."""
        return {crash.model for crash in self.crashes}

    @property
    def conclusive(self) -> bool:
        """Return whether the crashes are more than one or two clients can have caused."""
        loads = sum(not crash.clients for crash in self.crashes)
        return loads >= TRIES or not _explained_by_two([crash.clients for crash in self.crashes if crash.clients])

    def with_crash(self, crash: Crash) -> Record:
        """Return the record with one crash more; only the last ones are kept, all are counted."""
        return replace(self, crashes=(*self.crashes[1 - _KEPT :], crash), count=self.count + 1)

    def explained(self) -> str:
        """Return the reason, as a part of a sentence."""
        several = f" of {len(self.models)} models" if len(self.models) > 1 else ""
        return f"{self.count} workers{several} crashed in a row, the last one because {self.crashes[-1].reason}"


@dataclass(slots=True)
class QuarantineLedger:
    """All counts of one hive; `duration_s` is how long a quarantine lasts."""

    duration_s: float
    models: dict[str, Record] = field(default_factory=dict)
    places: dict[Place, Record] = field(default_factory=dict)

    def record_crash(self, crash: Crash, at: float) -> None:
        """Count a crash, and quarantine its device or model where the limit is reached."""
        place = self.places.get(crash.place, Record()).with_crash(crash)
        if place.conclusive and len(place.models) > 1:
            self.places[crash.place] = replace(place, until=at + self.duration_s)
            self._discard_crashes_on(crash.place)
            return
        self.places[crash.place] = place
        model = self.models.get(crash.model, Record()).with_crash(crash)
        self.models[crash.model] = replace(model, until=at + self.duration_s) if model.conclusive else model

    def record_success(self, model: str, place: Place) -> None:
        """Reset the counts of *model* and *place*, whose worker has answered a request."""
        self.models.pop(model, None)
        self.places.pop(place, None)

    def lift(self, model: str, place: Place | None) -> None:
        """Allow one more try of a model and of a device, or of all devices without *place*."""
        if model in self.models:
            self.models[model] = replace(self.models[model], until=0.0)
        for each in [place] if place is not None else list(self.places):
            if each in self.places:
                self.places[each] = replace(self.places[each], until=0.0)

    def quarantined_models(self, at: float) -> dict[str, Record]:
        """Return the models that must not be used now."""
        return {model: record for model, record in self.models.items() if record.until > at}

    def quarantined_devices(self, at: float) -> dict[Place, Record]:
        """Return the devices that must not be used now."""
        return {place: record for place, record in self.places.items() if record.until > at}

    def check_invariants(self) -> None:
        """Raise AssertionError if the ledger contradicts itself."""
        for record in (*self.models.values(), *self.places.values()):
            assert record.count >= len(record.crashes) >= 1
            assert record.until == 0.0 or record.count >= TRIES
        for place, record in self.places.items():
            assert record.until == 0.0 or len(record.models) > 1, place

    def _discard_crashes_on(self, place: Place) -> None:
        """Remove the records of models whose crashes all happened on *place*."""
        for model, record in list(self.models.items()):
            if all(crash.place == place for crash in record.crashes):
                del self.models[model]


def _explained_by_two(crashes: Sequence[frozenset[str]]) -> bool:
    """Return whether two clients suffice so that at each of *crashes* a request of one of them ran."""
    if not crashes:
        return True
    for suspect in crashes[0]:
        others = [clients for clients in crashes if suspect not in clients]
        if not others or frozenset.intersection(*others):
            return True
    return False
