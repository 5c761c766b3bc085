"""Keep models and devices on which every worker crashes out of use, and publish them."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from typing import Final

from rbee.contracts.devices import Backend
from rbee.contracts.errors import ErrorCode
from rbee.contracts.workers import Quarantine, SpawnRequest
from rbee.errors import RbeeError
from rbee.hive.supervision.quarantine import Crash, Place, QuarantineLedger, Record

# Ends that say nothing about model or device, such as too little memory, are not counted.
CRASHES: Final = frozenset(
    {
        ErrorCode.WORKER_CRASHED,
        ErrorCode.WORKER_STALLED,
        ErrorCode.WORKER_START_FAILED,
        ErrorCode.LOADING_TIMEOUT,
    }
)


class Quarantines:
    """The quarantines of this machine.

    Args:
        duration_s: how long a quarantine lasts.
        on_change: called with all of them after a change.
    """

    def __init__(
        self,
        duration_s: float,
        on_change: Callable[[list[Quarantine]], None],
        *,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._ledger = QuarantineLedger(duration_s)
        self._on_change = on_change
        self._clock = clock
        self._wall_clock = wall_clock
        self._published: set[tuple[str | None, Place | None]] = set()

    def record_crash(
        self, model: str, place: Place, code: ErrorCode, reason: str, clients: Collection[str] = ()
    ) -> None:
        """Record the end of a worker that nobody requested; *clients* are those whose requests ran."""
        if code in CRASHES:
            self._ledger.record_crash(Crash(model, place, reason, frozenset(clients)), self._clock())
            self.publish()

    def record_success(self, model: str, place: Place) -> None:
        """Record an answered request."""
        self._ledger.record_success(model, place)
        self.publish()

    def admit(self, request: SpawnRequest, model: str) -> None:
        """Check that *model* may be spawned; a request that says so lifts the quarantine first.

        Raises RbeeError QUARANTINED.
        """
        if request.in_quarantine_too:
            any_device = request.device is None or request.backend is None
            place = None if any_device else (request.backend or Backend.CPU, request.device or 0)
            self._ledger.lift(model, place)
            self.publish()
        record = self._ledger.quarantined_models(self._clock()).get(model)
        if record is not None:
            raise self._refusal(model, record)

    def quarantined(self) -> dict[Place, RbeeError]:
        """Return the devices that must not be used now, with the error for whoever needs one of them."""
        places = self._ledger.quarantined_devices(self._clock())
        return {place: self._refusal(f"{place[0]} device {place[1]}", record) for place, record in places.items()}

    def listed(self) -> list[Quarantine]:
        """List all of them."""
        now = self._clock()
        models = [
            self._shown(record, model_ref=model) for model, record in self._ledger.quarantined_models(now).items()
        ]
        places = [
            self._shown(record, backend=place[0], device=place[1])
            for place, record in self._ledger.quarantined_devices(now).items()
        ]
        return [*models, *places]

    def publish(self) -> None:
        """Publish the quarantines if one was added or has ended; call it regularly, because they end by themselves."""
        listed = self.listed()
        names = {
            (each.model_ref, None if each.backend is None else (each.backend, each.device or 0)) for each in listed
        }
        if names != self._published:
            self._published = names
            self._on_change(listed)

    def _shown(
        self,
        record: Record,
        *,
        model_ref: str | None = None,
        backend: Backend | None = None,
        device: int | None = None,
    ) -> Quarantine:
        return Quarantine(
            model_ref=model_ref,
            backend=backend,
            device=device,
            crashes=record.count,
            reason=record.explained(),
            until_unix=round(self._wall_clock() + record.until - self._clock(), 1),
        )

    def _refusal(self, what: str, record: Record) -> RbeeError:
        left_s = max(int(record.until - self._clock()), 1)
        return RbeeError(
            ErrorCode.QUARANTINED,
            f"{what} is quarantined for another {left_s} s: {record.explained()}.",
            details={"crashes": record.count, "reason": record.crashes[-1].reason, "seconds_left": left_s},
            retry_after_s=left_s,
        )
