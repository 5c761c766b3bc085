"""Yield devices of nodes to other programs, and use them again; describe devices for people."""

from __future__ import annotations

from typing import Any

from rbee.keeper.session import Session
from rbee.keeper.ui.errors import AlreadyReportedError
from rbee.keeper.ui.output import size_text
from rbee.keeper.ui.times import date_text


def yield_devices(session: Session, node: str, **wanted: Any) -> None:
    """Empty devices of a node and print what became of each; *wanted* are fields of `NodeYield`."""
    out = session.out
    out.say(f"Emptying devices of {node}; running requests may end first", "🧹")
    receipt = session.queen().yield_devices({"node": node, **_given(wanted)})
    if out.json:
        out.data(receipt)
    else:
        for each in receipt["devices"]:
            _print_yield(session, each)
        out.say(f"To use them again: rbee-keeper hive resume --node {node}")
    if not all(worker.get("gone") for each in receipt["devices"] for worker in each["workers"]):
        raise AlreadyReportedError


def resume_devices(session: Session, node: str, **wanted: Any) -> None:
    """Use devices of a node again and print which; *wanted* are fields of `NodeResume`."""
    out = session.out
    receipt = session.queen().resume_devices({"node": node, **_given(wanted)})
    if out.json:
        out.data(receipt)
        return
    for each in receipt["devices"]:
        out.text(f"{each['backend']} device {each['device']} is used again")
    if not receipt["devices"]:
        out.text(f"No such device of {node} was yielded")


def print_devices(session: Session, node: str, view: dict[str, Any]) -> None:
    """Tell which devices of a hive are yielded, and of which other programs hold memory; *view* is its `HiveInfo`."""
    for each in view.get("yielded") or []:
        session.out.warn(f"{node}: {each['backend']} device {each['device']} is {_until(each.get('until_unix'))}")
    for device in view.get("devices") or []:
        if device.get("foreign_bytes"):
            free = f"{size_text(device['free_bytes'])} of {size_text(device['total_bytes'])} free"
            session.out.say(f"{node}: {device['backend']} device {device['index']}: {free}, {_foreign(device)}")


def _print_yield(session: Session, receipt: dict[str, Any]) -> None:
    out, device, workers = session.out, receipt["device"], receipt["workers"]
    freed = sum(worker.get("memory_returned_bytes") or 0 for worker in workers)
    stopped = f"{len(workers)} worker{'' if len(workers) == 1 else 's'} stopped"
    memory = f", {size_text(freed)} of memory freed" if freed else ""
    name = f"{device['backend']} device {device['index']}"
    out.text(
        f"{name} ({device['name']}) is {_until(receipt.get('until_unix'))}: {stopped}{memory}, "
        f"{size_text(device['free_bytes'])} free" + (f", {_foreign(device)}" if device.get("foreign_bytes") else "")
    )
    for worker in workers:
        _warn_of(session, worker)


def _warn_of(session: Session, worker: dict[str, Any]) -> None:
    """Say what of a stop was not as it should be."""
    warn, worker_id = session.out.warn, worker["worker_id"]
    if requests := worker.get("requests_stopped"):
        warn(f"{worker_id}: {requests} request{'' if requests == 1 else 's'} had not ended in time and were stopped")
    if worker.get("killed"):
        warn(f"{worker_id} did not end in time and was killed")
    if not worker.get("gone"):
        warn(f"{worker_id} still runs")
    if worker.get("memory_returned") is False:
        holders = [f"{one['name']} (process {one['pid']})" for one in worker.get("held_by") or []]
        warn(f"the memory of {worker_id} did not come back" + (f"; {', '.join(holders)} holds some" if holders else ""))


def _until(until_unix: float | None) -> str:
    if until_unix is None:
        return "yielded to another program until it is resumed"
    return f"yielded to another program until {date_text(int(until_unix), none='')} UTC"


def _foreign(device: dict[str, Any]) -> str:
    """Return what other programs hold of a device, the largest first."""
    holders = [f"{one['name']}, process {one['pid']}: {size_text(one['bytes'])}" for one in device.get("held_by") or []]
    return f"foreign {size_text(device['foreign_bytes'])}" + (f" ({'; '.join(holders)})" if holders else "")


def _given(wanted: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in wanted.items() if value is not None}
