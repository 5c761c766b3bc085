"""Decide which models and devices are not used for a while, because every worker on them crashed.

Pure: time comes in as `at` (seconds of any steady clock).
A model is quarantined after three crashes in a row, wherever they were. A device is quarantined after three in a row
that more than one model had; those models are then no longer blamed for what happened there.
A request that was answered is proof: the count of its model and of its device begins anew.
When a quarantine is over, or lifted, one more try is allowed: a crash puts it back at once.

Invariants: what is barred has crashed at least three times since it last proved itself; a bar has an end.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final

from rbee.contracts.devices import Backend

Place = tuple[Backend, int]
"""A device by backend and index."""
TRIES: Final = 3


@dataclass(frozen=True, slots=True)
class Crash:
    """A worker that ended without being asked to, or had to be ended because it was stuck."""

    model: str
    place: Place
    reason: str


@dataclass(frozen=True, slots=True)
class Record:
    """The crashes in a row of a model or device, newest last, and until when it is barred; 0 means it is not."""

    crashes: tuple[Crash, ...] = ()
    count: int = 0
    until: float = 0.0

    @property
    def models(self) -> set[str]:
        """Return the models that crashed."""
        return {crash.model for crash in self.crashes}

    def with_crash(self, crash: Crash) -> Record:
        """Add one; only a few are kept, all are counted."""
        return replace(self, crashes=(*self.crashes[-7:], crash), count=self.count + 1)

    def explained(self) -> str:
        """Say it in a sentence."""
        several = f" of {len(self.models)} models" if len(self.models) > 1 else ""
        return f"{self.count} workers{several} crashed in a row, the last one because {self.crashes[-1].reason}"


@dataclass(slots=True)
class QuarantineLedger:
    """All counts of one hive; `bar_s` is how long a quarantine lasts, in seconds."""

    duration_s: float
    models: dict[str, Record] = field(default_factory=dict)
    places: dict[Place, Record] = field(default_factory=dict)

    def record_crash(self, crash: Crash, at: float) -> None:
        """Count a crash, and quarantine what it was the last straw for."""
        place = self.places.get(crash.place, Record()).with_crash(crash)
        if place.count >= TRIES and len(place.models) > 1:
            self.places[crash.place] = replace(place, until=at + self.duration_s)
            self._acquit(crash.place)
            return
        self.places[crash.place] = place
        model = self.models.get(crash.model, Record()).with_crash(crash)
        self.models[crash.model] = replace(model, until=at + self.duration_s) if model.count >= TRIES else model

    def record_success(self, model: str, place: Place) -> None:
        """Note that a worker of *model* on *place* has answered a request."""
        self.models.pop(model, None)
        self.places.pop(place, None)

    def lift(self, model: str, place: Place | None) -> None:
        """Let a model be tried once more, and a device, or all of them where it does not matter which."""
        if model in self.models:
            self.models[model] = replace(self.models[model], until=0.0)
        for each in [place] if place is not None else list(self.places):
            if each in self.places:
                self.places[each] = replace(self.places[each], until=0.0)

    def quarantined_models(self, at: float) -> dict[str, Record]:
        """Return the models that are not to be used now."""
        return {model: record for model, record in self.models.items() if record.until > at}

    def quarantined_devices(self, at: float) -> dict[Place, Record]:
        """Return the devices that are not to be used now."""
        return {place: record for place, record in self.places.items() if record.until > at}

    def check_invariants(self) -> None:
        """Raise AssertionError if the book contradicts itself."""
        for record in (*self.models.values(), *self.places.values()):
            assert record.count >= len(record.crashes) >= 1
            assert record.until == 0.0 or record.count >= TRIES
        for place, record in self.places.items():
            assert record.until == 0.0 or len(record.models) > 1, place

    def _acquit(self, place: Place) -> None:
        """Forget the crashes of models that all happened on one device."""
        for model, record in list(self.models.items()):
            if all(crash.place == place for crash in record.crashes):
                del self.models[model]
