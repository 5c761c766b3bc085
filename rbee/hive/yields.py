"""Keep which devices are yielded to other programs: in the home, through restarts, and at the queens."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter, ValidationError

from rbee.config.atomic_write import atomic_write
from rbee.contracts.devices import YieldedDevice
from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError
from rbee.hive.supervision.quarantine import Place
from rbee.hive.supervision.yielding import Moment, YieldLedger

log = logging.getLogger(__name__)
LOOK_INTERVAL_S: Final = 0.5


class Yields:
    """The yielded devices of this machine.

    Args:
        path: the file that stores them.
        on_change: called with all of them after a change.

    Raises RbeeError STATE_CORRUPT for a file that holds something else: what it kept free must not be taken.
    """

    def __init__(
        self,
        path: Path,
        on_change: Callable[[list[YieldedDevice]], None],
        *,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._path = path
        self._on_change = on_change
        self._clock = clock
        self._wall_clock = wall_clock
        self._changing = asyncio.Lock()
        self._ledger = YieldLedger.restore(_read(path), self._now())

    def listed(self) -> list[YieldedDevice]:
        """List all of them."""
        return self._ledger.at(self._now()).listed()

    def barred(self) -> dict[Place, RbeeError]:
        """Return the devices on which no worker may be started now, with the error for whoever needs one of them."""
        return {(each.backend, each.device): self._refusal(each) for each in self.listed()}

    async def add(self, places: Collection[Place], for_s: float | None) -> None:
        """Yield devices from now on, until they are resumed or *for_s* seconds have passed, and tell the queens.

        Raises RbeeError DISK_FULL or PERMISSION_DENIED, and then nothing has changed.
        """
        async with self._changing:
            await self._change(self._ledger.with_yielded(places, self._now(), for_s))

    async def remove(self, places: Collection[Place]) -> list[YieldedDevice]:
        """Use devices again, and return those of them that were yielded.

        Raises RbeeError DISK_FULL or PERMISSION_DENIED, and then nothing has changed.
        """
        async with self._changing:
            resumed = [each for each in self.listed() if (each.backend, each.device) in places]
            if resumed:
                await self._change(self._ledger.without(places))
            return resumed

    async def watch(self) -> None:
        """Use devices again when their time has come, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_INTERVAL_S)
            async with self._changing:
                ledger = self._ledger.at(self._now())
                if ledger is self._ledger:
                    continue
                try:
                    await self._change(ledger)
                except RbeeError as error:  # what the file says too much has ended at the next start as well
                    log.error("yielded devices not stored", extra={"fields": {"reason": error.message}})
                    self._publish(ledger)

    async def _change(self, ledger: YieldLedger) -> None:
        """Store a ledger, then use it and tell the queens: what was said survives a power cut."""
        rows = [each.model_dump(mode="json") for each in ledger.listed()]
        text = json.dumps({"yielded": rows}, indent=1) + "\n"
        await asyncio.to_thread(atomic_write, self._path, text)
        self._publish(ledger)

    def _publish(self, ledger: YieldLedger) -> None:
        self._ledger = ledger
        listed = ledger.listed()
        fields = {"yielded": [f"{each.backend}:{each.device}" for each in listed]}
        log.info("yielded devices changed", extra={"fields": fields})
        self._on_change(listed)

    def _now(self) -> Moment:
        return Moment(self._wall_clock(), self._clock())

    def _refusal(self, device: YieldedDevice) -> RbeeError:
        until = device.until_unix
        left_s = None if until is None else max(int(until - self._wall_clock()), 1)
        return RbeeError(
            ErrorCode.DEVICE_YIELDED,
            f"{device.backend} device {device.device} is {device.explained}; no worker is started there.",
            details={"backend": device.backend.value, "device": device.device, "until_unix": until},
            retry_after_s=left_s,
        )


def _read(path: Path) -> list[YieldedDevice]:
    """Return what the file holds; nothing where there is none."""
    try:
        stored = json.loads(path.read_bytes())
        return TypeAdapter(list[YieldedDevice]).validate_python(stored["yielded"])
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError, KeyError, ValidationError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it holds something else"
        raise RbeeError(
            ErrorCode.STATE_CORRUPT,
            f"The yielded devices cannot be read from {path}: {reason}.",
            details={"path": str(path)},
        ) from error
