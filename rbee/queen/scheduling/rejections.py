"""Describe why a task cannot run: the rejection of each candidate, and the refusal that sums them up.

Pure: `placement` finds what is wrong, its message and details are made here. They reach the user.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from rbee.contracts.devices import Backend, Device, YieldedDevice
from rbee.contracts.errors import ErrorCode
from rbee.contracts.references import shown_reference
from rbee.contracts.workers import Quarantine, WorkerState
from rbee.errors import RbeeError
from rbee.queen.hive import Hive
from rbee.queen.scheduling.client_blocks import Block
from rbee.queen.scheduling.occupancy import name_of
from rbee.queen.scheduling.room import Room, Site, workers_on

_MB = 1024 * 1024  # as the hives count
MOST_TOLD = 100  # rejections in the details of an error
_MOST_NAMED = 10  # of them in its message: what a refusal of a thousand nodes says must be read by somebody
CLIENT_BLOCKED: Final = "client_blocked"
"""In the details of an error: it is this client that is kept from the model (`client_blocks`)."""

# A refusal of a whole fleet has the code of the candidate that came closest.
_CLOSENESS = (
    ErrorCode.DEVICE_YIELDED,
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
    ErrorCode.NODE_NOT_FOUND,
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
    client_blocked: bool = False

    def error(self) -> RbeeError:
        """Return the form that reaches the user: the details of the closest one, the reasons of all, or of many."""
        closest = next((r for r in self.rejected if r.code is self.code), None)
        details: dict[str, object] = {} if closest is None else dict(closest.details)
        details["rejected"] = [
            {"node": r.node, "code": r.code.value, "why": r.reason} for r in self.rejected[:MOST_TOLD]
        ]
        if self.client_blocked:
            details[CLIENT_BLOCKED] = True
        hint = None
        if self.code is ErrorCode.VERSION_MISMATCH and closest is not None:
            hint = f"Upgrade the hive: rbee-keeper hive upgrade --node {closest.node}"
        if self.code is ErrorCode.DEVICE_YIELDED and closest is not None:
            resume = f"rbee-keeper hive resume --node {closest.node}"
            hint = f"Use another node or backend, or give the device back: {resume}"
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


def undeclared(name: str) -> Refusal:
    """Refuse because a model is not declared any more."""
    return Refusal(ErrorCode.MODEL_NOT_FOUND, f"{name} is not declared any more.", model=name)


def blocked(block: Block, now: float) -> Refusal:
    """Refuse because the client is kept from the model."""
    left_s = max(int(block.until - now), 1)
    message = f"{block.model} is quarantined for this client for another {left_s} s: {block.explained()}."
    return Refusal(ErrorCode.QUARANTINED, message, model=block.model, seconds_left=left_s, client_blocked=True)


def refused(model: str, rejected: Sequence[Rejection]) -> Refusal:
    """Refuse because every candidate was rejected."""
    model = shown_reference(model)
    closest = min(rejected, key=_closeness)
    if len(rejected) == 1:
        message = f"Node {closest.node} cannot run {model}: {closest.reason}."
    else:
        # Those that came closest first, where not all can be told.
        ordered = sorted(rejected, key=_closeness) if len(rejected) > _MOST_NAMED else rejected
        reasons = "; ".join(f"{rejection.node}: {rejection.reason}" for rejection in ordered[:_MOST_NAMED])
        more = f"; and {len(rejected) - _MOST_NAMED} more" if len(rejected) > _MOST_NAMED else ""
        message = f"None of {len(rejected)} nodes can run {model}: {reasons}{more}."
        rejected = ordered
    return Refusal(closest.code, message, tuple(rejected), model)


def _closeness(rejection: Rejection) -> int:
    return _CLOSENESS.index(rejection.code)


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


def device_missing(hive: Hive, backend: Backend, asked: Sequence[int], available: list[int]) -> Rejection:
    """Reject a node whose devices of *backend*, those *available*, include none of those *asked* for."""
    wanted = " or ".join(map(str, asked))
    return Rejection(
        hive.node,
        ErrorCode.INVALID_DEVICE,
        f"it has no {backend.value} device {wanted}; its {backend.value} devices are " + ", ".join(map(str, available)),
        {"device": asked[0], "devices": available},
    )


def no_such_node(node: str) -> Rejection:
    """Reject a node that a declaration names and that is not registered."""
    return Rejection(node, ErrorCode.NODE_NOT_FOUND, "there is no node of this name")


def not_allowed(node: str, allowed: Sequence[str]) -> Rejection:
    """Reject a node that the declaration of the model does not allow."""
    return Rejection(node, ErrorCode.NODE_NOT_FOUND, f"the model is declared for {', '.join(allowed)} only")


def quarantined(hive: Hive, quarantine: Quarantine) -> Rejection:
    """Reject a node that has the model, or the devices, in quarantine."""
    return Rejection(
        hive.node,
        ErrorCode.QUARANTINED,
        f"{quarantine.what} is quarantined: {quarantine.reason}",
        {"crashes": quarantine.crashes, "reason": quarantine.reason, "until_unix": quarantine.until_unix},
    )


def yielded(hive: Hive, devices: Iterable[YieldedDevice]) -> Rejection:
    """Reject a node all of whose *devices* that could be used are yielded, of which the first to be back is named."""
    first = min(devices, key=lambda each: float("inf") if each.until_unix is None else each.until_unix)
    return Rejection(
        hive.node,
        ErrorCode.DEVICE_YIELDED,
        f"its {first.backend.value} device {first.device} is {first.explained}",
        {"backend": first.backend.value, "device": first.device, "until_unix": first.until_unix},
    )


def model_missing(hive: Hive) -> Rejection:
    """Reject a node that does not have the model, for a request that may not have it fetched."""
    return Rejection(hive.node, ErrorCode.MODEL_NOT_FOUND, "it does not have the model")


def insufficient_memory(hive: Hive, device: Device, need_bytes: int) -> Rejection:
    """Reject a node whose best device has not enough memory free, and name who keeps the rest, if that is enough."""
    code = ErrorCode.RAM_EXHAUSTED if device.backend is Backend.CPU else ErrorCode.VRAM_EXHAUSTED
    required, available = -(-need_bytes // _MB), device.free_bytes // _MB
    is_larger = need_bytes > (device.budget_bytes or device.total_bytes)
    there = [] if is_larger else [worker for worker in workers_on(hive, device) if worker.keep == "always"]
    kept = ", ".join(sorted({shown_reference(name_of(worker)) for worker in there}))
    return Rejection(
        hive.node,
        code,
        f"the model needs {required} MB and {device.backend.value} device {device.index} has {available} MB free"
        + _budget(device)
        + device.foreign_explained
        + (f"; what is always kept there does not give way: {kept}" if kept else ""),
        {"required_mb": required, "available_mb": available},
    )


def _budget(device: Device) -> str:
    limit = device.budget_bytes
    return "" if limit is None else f" of the {limit // _MB} MB that workers may take there (cpu_memory_gb)"


def occupied(site: Site) -> Rejection:
    """Reject, for now, a device whose memory workers hold that are in use, or that is held for another model."""
    room = site.room
    code = ErrorCode.RAM_EXHAUSTED if site.backend is Backend.CPU else ErrorCode.VRAM_EXHAUSTED
    required, available = -(-room.need // _MB), room.free // _MB
    return Rejection(
        site.node,
        code,
        f"the model needs {required} MB and {site.backend.value} device {site.device} has {available} MB free; "
        + in_the_way(room),
        {"required_mb": required, "available_mb": available},
    )


def in_the_way(room: Room) -> str:
    """Describe what must end before the model fits."""
    if room.held_for is not None:
        return f"it is held for {shown_reference(room.held_for)}, which is asked for"
    if room.returning:
        return "the memory of a worker that has just ended is on its way back"
    names = ", ".join(sorted({name_of(worker) for worker in room.blockers}))
    ending = all(worker.state in (WorkerState.DRAINING, WorkerState.STOPPING) for worker in room.blockers)
    return f"the rest is used by {shown_reference(names)}, which is {'ending' if ending else 'in use'}"
