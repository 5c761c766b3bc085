"""Convert a detection into the contract of the API, and into text for the terminal."""

from __future__ import annotations

from rbee.contracts.devices import Detection
from rbee.contracts.hives import BackendList

_MB = 1024 * 1024


def describe(detection: Detection) -> BackendList:
    """Return backends, devices and faults as the API has them."""
    return BackendList(
        backends=detection.backends, counts=detection.counts, devices=detection.devices, faults=detection.faults
    )


def format_backends(listed: BackendList) -> str:
    """Return one line for each device and fault, then backends and counts as JSON."""
    lines = [
        f"{device.backend:6} {device.index}  {device.name}  {device.total_bytes // _MB} MB, "
        f"{device.free_bytes // _MB} MB free"
        for device in listed.devices
    ]
    lines += [f"{backend:6} -  not usable: {reason}" for backend, reason in listed.faults.items()]
    names = ", ".join(f'"{backend}"' for backend in listed.backends)
    counts = ", ".join(f'"{backend}": {count}' for backend, count in listed.counts.items())
    return "\n".join([*lines, f"backends: [{names}]", f"devices: {{{counts}}}"])
