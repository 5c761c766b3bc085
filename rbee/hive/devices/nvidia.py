"""Query NVIDIA devices through NVML; the only module that imports pynvml.

This runs in the probe's child process, because a broken driver can hang or crash its caller.
Every failure becomes one sentence.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from rbee.contracts.devices import Backend, Device, MemoryHolder

LIBRARY: Final = "libnvidia-ml.so.1"


class NvidiaFaultError(Exception):
    """Raised when there is a driver and it does not work; the text says what is wrong with it."""


def detect() -> list[Device]:
    """List the devices with their memory, and every process that holds some of it, without its name.

    Raises NvidiaFaultError if the driver does not work.
    """
    with _driver() as (pynvml, handles):
        devices = []
        for index, handle in enumerate(handles):
            memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
            devices.append(
                Device(
                    backend=Backend.CUDA,
                    index=index,
                    name=_text(pynvml.nvmlDeviceGetName(handle)),
                    total_bytes=int(memory.total),
                    free_bytes=int(memory.free),
                    held_by=[MemoryHolder(pid=pid, name="", bytes=size) for pid, size in _holders(pynvml, handle)],
                    energy_j=_energy(pynvml, handle),
                )
            )
        return devices


def _holders(pynvml: Any, handle: Any) -> list[tuple[int, int]]:
    """Return the processes that compute or draw on a device, with the bytes they hold; one may do both.

    Some devices and drivers cannot list them, which is no fault of the device.
    """
    held: dict[int, int] = {}
    for listed in (pynvml.nvmlDeviceGetComputeRunningProcesses, pynvml.nvmlDeviceGetGraphicsRunningProcesses):
        with contextlib.suppress(pynvml.NVMLError):
            for each in listed(handle):
                held[int(each.pid)] = max(held.get(int(each.pid), 0), int(each.usedGpuMemory or 0))
    return list(held.items())


def _energy(pynvml: Any, handle: Any) -> float | None:
    """Return the joules that a device has taken since the driver was loaded; older ones, and parts, do not tell."""
    with contextlib.suppress(pynvml.NVMLError):
        return int(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1000
    return None


@contextlib.contextmanager
def _driver() -> Iterator[tuple[Any, list[Any]]]:
    """Yield NVML with the handles of the devices that workers see. Every failure becomes a sentence."""
    import pynvml

    try:
        pynvml.nvmlInit()
        try:
            handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
            shown = visible(os.environ, [_text(pynvml.nvmlDeviceGetUUID(handle)) for handle in handles])
            yield pynvml, [handles[place] for place in shown]
        finally:
            with contextlib.suppress(pynvml.NVMLError):
                pynvml.nvmlShutdown()
    except pynvml.NVMLError as error:
        raise NvidiaFaultError(_explain(pynvml, error)) from error


def visible(environ: Mapping[str, str], uuids: Sequence[str]) -> list[int]:
    """Choose the devices that CUDA programs are shown, in CUDA's order, by their place in *uuids*.

    The driver's library lists all devices; a worker only sees those of CUDA_VISIBLE_DEVICES, and counts those. As
    CUDA does, take numbers or beginnings of names, and ignore whatever follows the first that is neither.
    """
    text = environ.get("CUDA_VISIBLE_DEVICES")
    if text is None:
        return list(range(len(uuids)))
    chosen: list[int] = []
    for part in (part.strip() for part in text.split(",")):
        if part.isdigit():
            named = [int(part)] if int(part) < len(uuids) else []
        else:
            named = [place for place, uuid in enumerate(uuids) if part and uuid.startswith(part)]
        if len(named) != 1 or named[0] in chosen:
            break
        chosen += named
    return chosen


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _explain(pynvml: object, error: Exception) -> str:
    known = {
        "NVMLError_LibRmVersionMismatch": "the driver and its library have different versions; reboot after an update",
        "NVMLError_DriverNotLoaded": "the NVIDIA kernel driver is not loaded",
        "NVMLError_NoPermission": "this user may not use the NVIDIA driver",
        "NVMLError_LibraryNotFound": f"{LIBRARY} cannot be loaded",
        "NVMLError_FunctionNotFound": "the driver is too old for NVML",
        "NVMLError_GpuIsLost": "a GPU has fallen off the bus; it needs a reset or a reboot",
    }
    for name, text in known.items():
        kind = getattr(pynvml, name, None)
        if isinstance(kind, type) and isinstance(error, kind):
            return f"{text} ({error})"
    return str(error)
