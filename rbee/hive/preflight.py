"""Decide whether and where a worker may be started: backend, device and memory.

Pure: the devices and the request go in; a `PreflightResult` comes out, or an RbeeError that says what is
available. A worker is never moved to another backend than the requested one, or, without a request, than the best.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from rbee.contracts.devices import Backend, Detection, Device
from rbee.contracts.engine import QUANTISED_BLOCK
from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError
from rbee.gguf.header import GgufHeader
from rbee.hive.devices.budget import CpuBudget
from rbee.hive.memory import LoadOptions, memory_need

MB: Final = 1024 * 1024
Place = tuple[Backend, int]
"""A device by backend and index."""
_GPU_NAMES: Final = {Backend.CUDA: "NVIDIA GPU", Backend.METAL: "Apple GPU"}


@dataclass(frozen=True, slots=True)
class PreflightResult:
    """Where a worker may run, and the memory it is expected to need there."""

    device: Device
    need_bytes: int


def choose_device(
    detection: Detection,
    header: GgufHeader,
    *,
    backend: Backend | None,
    device: int | None,
    load_on: Callable[[Backend], LoadOptions],
    promised: Mapping[Place, int],
    measured: Mapping[Backend, int] | None = None,
    barred: Mapping[Place, RbeeError] | None = None,
    cpu_budget: CpuBudget | None = None,
    arm: bool = False,
) -> PreflightResult:
    """Choose the device and check that the model fits.

    Args:
        load_on: returns the load options for a backend.
        promised: bytes by (backend, index) that workers which are still loading will take.
        measured: the most bytes that such a load took before, by backend; used instead of the estimate.
        barred: the devices that must not be used, each with the error for whoever needs it.
        cpu_budget: what workers may take of the machine's memory, where that is limited; not yet in *detection*.
        arm: the CPU is an ARM one.

    Raises:
        RbeeError: BACKEND_UNAVAILABLE, GPU_NOT_AVAILABLE, INVALID_DEVICE, QUARANTINED, DEVICE_YIELDED,
            RAM_EXHAUSTED, VRAM_EXHAUSTED, or INVALID_REQUEST for a cache that the model cannot have.
    """
    chosen = backend or _best_backend(detection)
    candidates = _devices_of(detection, chosen)
    barred = barred or {}

    def unpromised(candidate: Device) -> int:
        return max(candidate.free_bytes - promised.get((candidate.backend, candidate.index), 0), 0)

    def free(candidate: Device) -> int:
        budget = cpu_budget if candidate.backend is Backend.CPU else None
        return unpromised(candidate) if budget is None else min(unpromised(candidate), budget.left_bytes)

    if device is not None:
        candidates = [_device_at(candidates, chosen, device)]
    usable = [each for each in candidates if (each.backend, each.index) not in barred]
    if not usable:
        raise barred[candidates[0].backend, candidates[0].index]
    target = max(usable, key=lambda candidate: (free(candidate), -candidate.index))
    load = load_on(chosen)
    _check_cache(header, load)
    need = memory_need(header, load, arm=arm, measured_bytes=(measured or {}).get(chosen))
    if need > free(target):
        over_budget = cpu_budget if free(target) < unpromised(target) else None
        raise _exhausted(target, need, free(target), header, over_budget)
    return PreflightResult(target, need)


def select_devices(detection: Detection, backend: Backend | None, device: int | None) -> list[Device]:
    """Return the devices that a command means: one, all of a backend, or all of the machine.

    Raises RbeeError: BACKEND_UNAVAILABLE, GPU_NOT_AVAILABLE, INVALID_DEVICE.
    """
    if backend is None and device is None:
        return detection.devices
    chosen = backend or _best_backend(detection)
    candidates = _devices_of(detection, chosen)
    return candidates if device is None else [_device_at(candidates, chosen, device)]


def _check_cache(header: GgufHeader, load: LoadOptions) -> None:
    """Refuse a quantised cache for a model whose heads are not whole blocks, which llama.cpp would accept."""
    odd = [width for width in header.head_widths or () if width % QUANTISED_BLOCK]
    if load.cache_type != "q8_0" or not odd:
        return
    raise RbeeError(
        ErrorCode.INVALID_REQUEST,
        f"The cache of this model cannot be of type q8_0: its attention heads have {odd[0]} numbers, "
        f"and q8_0 stores them by {QUANTISED_BLOCK}.",
        details={"cache_type": load.cache_type, "head_widths": list(header.head_widths or ())},
        hint="Use cache_type f16: for this worker or model, or in the settings of the hive.",
        param="cache_type",
    )


def _best_backend(detection: Detection) -> Backend:
    """Return the best backend of the machine, even if its driver is broken, so that the error names the fault."""
    return next(name for name in Backend if name in detection.faults or name in detection.backends)


def _devices_of(detection: Detection, backend: Backend) -> list[Device]:
    found = [device for device in detection.devices if device.backend is backend]
    if found:
        return found
    present = ", ".join(detection.backends)
    details = {
        "backend": backend.value,
        "available": [name.value for name in detection.backends],
        "devices": {name.value: count for name, count in detection.counts.items()},
    }
    fault = detection.faults.get(backend)
    if fault is not None:
        raise RbeeError(
            ErrorCode.GPU_NOT_AVAILABLE,
            f"Backend {backend} cannot be used on this machine: {fault}. Available: {present}.",
            details={**details, "fault": fault},
        )
    thing = _GPU_NAMES.get(backend, "device")
    raise RbeeError(
        ErrorCode.BACKEND_UNAVAILABLE,
        f"Backend {backend} is not available on this machine: no {thing} was found. Available: {present}.",
        details=details,
    )


def _device_at(candidates: list[Device], backend: Backend, index: int) -> Device:
    for candidate in candidates:
        if candidate.index == index:
            return candidate
    valid = [candidate.index for candidate in candidates]
    raise RbeeError(
        ErrorCode.INVALID_DEVICE,
        f"There is no device {index} of backend {backend} on this machine; valid: {', '.join(map(str, valid))}.",
        details={"backend": backend.value, "device": index, "valid": valid},
        param="device",
    )


def _exhausted(device: Device, need: int, have: int, header: GgufHeader, budget: CpuBudget | None) -> RbeeError:
    code = ErrorCode.RAM_EXHAUSTED if device.backend is Backend.CPU else ErrorCode.VRAM_EXHAUSTED
    kind = "memory" if device.backend is Backend.CPU else "GPU memory"
    need_mb, have_mb = -(-need // MB), have // MB
    now = f" (this one is {header.quantization})" if header.quantization else ""
    offer = "" if device.backend is Backend.CPU else ", or use --backend cpu"
    details: dict[str, object] = {
        "required_mb": need_mb,
        "available_mb": have_mb,
        "backend": device.backend.value,
        "device": device.index,
    }
    there = f"{device.backend} device {device.index} ({device.name}) has {have_mb} MB free{device.foreign_explained}"
    if device.foreign_explained:
        details["foreign_mb"] = device.foreign_bytes // MB
        details["held_by"] = [holder.model_dump() for holder in device.held_by]
    if budget is not None:
        details["budget_mb"] = budget.limit_bytes // MB
        there = f"of the {budget.limit_bytes // MB} MB that workers may take on this machine, {have_mb} MB are left"
        offer = ", or raise cpu_memory_gb of the hive"
    return RbeeError(
        code,
        f"The model needs {need_mb} MB of {kind}; {there}.",
        details=details,
        hint=f"Use a smaller quantisation{now}, fewer slots or a shorter context, or stop a worker: "
        f"rbee-keeper worker list{offer}",
    )
