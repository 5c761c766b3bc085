"""NVIDIA devices through NVML: the only module that imports pynvml.

Runs in the probe's child process, because a broken driver can hang or crash whoever asks it.
Every way to fail becomes one sentence.
"""

from __future__ import annotations

import contextlib
from typing import Final

from rbee.contracts.devices import Backend, Device

LIBRARY: Final = "libnvidia-ml.so.1"


class NvidiaFaultError(Exception):
    """Raised when there is a driver and it does not work; the text says what is wrong with it."""


def detect() -> list[Device]:
    """List the devices with their memory. Raises NvidiaFaultError if the driver does not work."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        raise NvidiaFaultError(_explain(pynvml, error)) from error
    try:
        devices = []
        for index in range(pynvml.nvmlDeviceGetCount()):
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
            name = pynvml.nvmlDeviceGetName(handle)
            devices.append(
                Device(
                    backend=Backend.CUDA,
                    index=index,
                    name=name.decode() if isinstance(name, bytes) else str(name),
                    total_bytes=int(memory.total),
                    free_bytes=int(memory.free),
                )
            )
    except pynvml.NVMLError as error:
        raise NvidiaFaultError(_explain(pynvml, error)) from error
    else:
        return devices
    finally:
        with contextlib.suppress(pynvml.NVMLError):
            pynvml.nvmlShutdown()


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
