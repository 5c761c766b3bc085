"""Describe why a task cannot run: the rejection of each candidate, and the refusal that sums them up.

Pure: `placement` finds what is wrong, its message and details are made here. They reach the user.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from rbee.contracts.devices import Backend, Device
from rbee.contracts.errors import ErrorCode
from rbee.contracts.references import shown_reference
from rbee.contracts.workers import Quarantine
from rbee.errors import RbeeError
from rbee.queen.registry import Hive
from rbee.queen.scheduling.client_blocks import Block

_MB = 1024 * 1024  # as the hives count

# A refusal of a whole fleet has the code of the candidate that came closest.
_CLOSENESS = (
    ErrorCode.QUARANTINED,
    ErrorCode.RAM_EXHAUSTED,
    ErrorCode.VRAM_EXHAUSTED,
    ErrorCode.DRAINING,
    ErrorCode.VERSION_MISMATCH,
    ErrorCode.INVALID_DEVICE,
    ErrorCode.GPU_NOT_AVAILABLE,
    ErrorCode.BACKEND_UNAVAILABLE,
    ErrorCode.MODEL_NOT_FOUND,
    ErrorCode.CONNECTION_TIMEOUT,
)


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why one node, or one device of it, was passed over."""

    node: str
    code: ErrorCode
    reason: str
    details: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Refusal:
    """No node can run it: the reason for each candidate."""

    code: ErrorCode
    message: str
    rejected: tuple[Rejection, ...] = ()
    model: str = ""
    seconds_left: int | None = None

    def error(self) -> RbeeError:
        """Return the form that reaches the user: the details of the closest candidate, the reasons of all."""
        closest = next((r for r in self.rejected if r.code is self.code), None)
        details: dict[str, object] = {} if closest is None else dict(closest.details)
        details["rejected"] = [{"node": r.node, "code": r.code.value, "why": r.reason} for r in self.rejected]
        hint = None
        if self.code is ErrorCode.VERSION_MISMATCH and closest is not None:
            hint = f"Upgrade the hive: rbee-keeper hive upgrade --node {closest.node}"
        if self.code is ErrorCode.QUARANTINED and closest is not None:
            hint = (
                f"See the log (rbee-keeper logs --node {closest.node}); it is retried later; to retry now: "
                f"rbee-keeper worker start --node {closest.node} --model {self.model}"
            )
        return RbeeError(self.code, self.message, details=details, hint=hint, retry_after_s=self.seconds_left)


def no_node(node: str | None) -> Refusal:
    """Refuse because *node* is not known, or with None because no node is."""
    if node is None:
        return Refusal(ErrorCode.NODE_NOT_FOUND, "No node is registered.")
    return Refusal(ErrorCode.NODE_NOT_FOUND, f"There is no node named {node}.")


def blocked(block: Block, now: float) -> Refusal:
    """Refuse because the client is kept from the model."""
    left_s = max(int(block.until - now), 1)
    message = f"{block.model} is quarantined for this client for another {left_s} s: {block.explained()}."
    return Refusal(ErrorCode.QUARANTINED, message, model=block.model, seconds_left=left_s)


def refused(model: str, rejected: Sequence[Rejection]) -> Refusal:
    """Refuse because every candidate was rejected."""
    model = shown_reference(model)
    closest = min(rejected, key=lambda rejection: _CLOSENESS.index(rejection.code))
    if len(rejected) == 1:
        message = f"Node {closest.node} cannot run {model}: {closest.reason}."
    else:
        reasons = "; ".join(f"{rejection.node}: {rejection.reason}" for rejection in rejected)
        message = f"None of {len(rejected)} nodes can run {model}: {reasons}."
    return Refusal(closest.code, message, tuple(rejected), model)


def unreachable(hive: Hive) -> Rejection:
    """Reject a node whose hive is not connected."""
    because = f": {hive.last_error}" if hive.last_error else ""
    return Rejection(hive.node, ErrorCode.CONNECTION_TIMEOUT, f"its hive does not answer{because}")


def other_version(hive: Hive, ours: str) -> Rejection:
    """Reject a node whose hive does not work with a queen of version *ours*."""
    return Rejection(
        hive.node,
        ErrorCode.VERSION_MISMATCH,
        f"its hive is version {hive.version}, the queen is {ours}",
        {"hive_version": hive.version, "queen_version": ours},
    )


def closing(hive: Hive) -> Rejection:
    """Reject a node whose hive is stopping."""
    return Rejection(hive.node, ErrorCode.DRAINING, "its hive is stopping")


def backend_missing(hive: Hive, backend: Backend | None) -> Rejection:
    """Reject a node that does not have *backend*, has it but cannot use it, or with None has none at all."""
    available = [b.value for b in hive.detection.backends]
    named = ", ".join(available) or "nothing"
    fault = None if backend is None else hive.detection.faults.get(backend)
    asked = "any backend" if backend is None else backend.value
    if fault is not None:
        code, reason = ErrorCode.GPU_NOT_AVAILABLE, f"its {asked} cannot be used ({fault}); it has {named}"
    else:
        code, reason = ErrorCode.BACKEND_UNAVAILABLE, f"it does not have {asked}; it has {named}"
    return Rejection(hive.node, code, reason, {"backend": asked, "available": available})


def device_missing(hive: Hive, backend: Backend, device: int, available: list[int]) -> Rejection:
    """Reject a node whose devices of *backend*, those *available*, do not include the requested one."""
    return Rejection(
        hive.node,
        ErrorCode.INVALID_DEVICE,
        f"it has no {backend.value} device {device}; its {backend.value} devices are " + ", ".join(map(str, available)),
        {"device": device, "devices": available},
    )


def quarantined(hive: Hive, quarantine: Quarantine) -> Rejection:
    """Reject a node that has the model, or the devices, in quarantine."""
    return Rejection(
        hive.node,
        ErrorCode.QUARANTINED,
        f"{quarantine.what} is quarantined: {quarantine.reason}",
        {"crashes": quarantine.crashes, "reason": quarantine.reason, "until_unix": quarantine.until_unix},
    )


def model_missing(hive: Hive) -> Rejection:
    """Reject a node that does not have the model, for a request that may not have it fetched."""
    return Rejection(hive.node, ErrorCode.MODEL_NOT_FOUND, "it does not have the model")


def insufficient_memory(hive: Hive, device: Device, need_bytes: int) -> Rejection:
    """Reject a node whose best device has not enough memory free."""
    code = ErrorCode.RAM_EXHAUSTED if device.backend is Backend.CPU else ErrorCode.VRAM_EXHAUSTED
    required, available = -(-need_bytes // _MB), device.free_bytes // _MB
    return Rejection(
        hive.node,
        code,
        f"the model needs {required} MB and {device.backend.value} device {device.index} has {available} MB free",
        {"required_mb": required, "available_mb": available},
    )
