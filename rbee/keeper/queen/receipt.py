"""Check the receipt of a queen's shutdown against the processes of this machine, and print it."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

from rbee.keeper.queen.pid_file import is_gone
from rbee.keeper.ui.output import size_text

_GONE_WITHIN_S = 3.0
_POLL_S = 0.05


class Receipt(NamedTuple):
    """The receipt of a shutdown; `left` describes what still runs or is still held, and where.

    `processes` that ended on this machine are None where the queen ran on another one.
    """

    hives: int
    workers: int
    killed: int
    processes: int | None
    memory_bytes: int | None
    seconds: float
    left: list[str]

    def data(self) -> dict[str, Any]:
        """Return it as plain data for --json."""
        return self._asdict()


def verify(cascade: dict[str, Any], *more_pids: int, here: bool = True) -> Receipt:
    """Parse a `CascadeReceipt`, and check that the processes that it names are gone, if they ran *here*.

    The numbers of processes of another machine may be those of anybody's on this one.
    """
    hives = [hive for hive in cascade.get("hives", []) if isinstance(hive, dict)]
    workers = [(hive, worker) for hive in hives for worker in hive.get("workers", [])]
    pids = {int(pid) for pid in [*cascade.get("pids", []), *more_pids]} if here else set()
    remaining = _wait_for(pids)
    left = [f"process {pid} on this machine" for pid in sorted(remaining)]
    left += [
        f"hive {hive.get('node')}: {hive.get('error') or 'did not stop'}"
        for hive in hives
        if not (hive.get("gone") or hive.get("kept"))
    ]
    left += [
        f"worker {worker.get('worker_id')} on {hive.get('node')}" for hive, worker in workers if not worker["gone"]
    ]
    left += [
        f"{size_text(holder['bytes'])} of worker {worker.get('worker_id')} on {hive.get('node')}, "
        f"held by {holder['name']} (process {holder['pid']})"
        for hive, worker in workers
        for holder in worker.get("held_by", [])
    ]
    left += [
        f"memory of worker {worker.get('worker_id')} on {hive.get('node')}, still held by an unknown process"
        for hive, worker in workers
        if worker.get("memory_returned") is False and not worker.get("held_by")
    ]
    known = [worker["memory_returned_bytes"] for _, worker in workers if worker.get("memory_returned_bytes")]
    return Receipt(
        hives=sum(1 for hive in hives if hive.get("gone")),
        workers=sum(1 for _, worker in workers if worker["gone"]),
        killed=sum(1 for _, worker in workers if worker.get("killed")),
        processes=len(pids) - len(remaining) if here else None,
        memory_bytes=sum(known) if known else None,
        seconds=float(cascade.get("seconds", 0.0)),
        left=left,
    )


def summary_lines(receipt: Receipt) -> list[str]:
    """Format it as one line, and one more for each thing that is left."""
    parts = [count(receipt.hives, "hive"), count(receipt.workers, "worker")]
    text = f"Stopped {' and '.join(parts)}"
    if receipt.processes:
        text += f"; {count(receipt.processes, 'process')} ended"
    if receipt.memory_bytes:
        text += f", {size_text(receipt.memory_bytes)} of memory freed"
    if receipt.killed:
        text += f" ({count(receipt.killed, 'worker')} had to be killed)"
    return [text, *(f"Still there: {thing}" for thing in receipt.left)]


def count(number: int, thing: str) -> str:
    """Format a number with its noun: 1 hive, 2 hives."""
    plural = thing + ("es" if thing.endswith("s") else "s")
    return f"{number} {thing if number == 1 else plural}"


def _wait_for(pids: set[int]) -> set[int]:
    deadline = time.monotonic() + _GONE_WITHIN_S
    remaining = {pid for pid in pids if not is_gone(pid)}
    while remaining and time.monotonic() < deadline:
        time.sleep(_POLL_S)
        remaining = {pid for pid in remaining if not is_gone(pid)}
    return remaining


def detail_lines(receipt: Receipt) -> list[str]:
    """Format it as one line for each thing that stopped or is left."""
    lines = [
        f"hives      {receipt.hives} stopped",
        f"workers    {receipt.workers} stopped" + (f", {receipt.killed} of them killed" if receipt.killed else ""),
        "processes  -" if receipt.processes is None else f"processes  {receipt.processes} ended on this machine",
        f"memory     {size_text(receipt.memory_bytes)} freed" if receipt.memory_bytes else "memory     -",
        f"time       {receipt.seconds:.1f} s",
    ]
    return lines + [f"LEFT       {thing}" for thing in receipt.left] if receipt.left else [*lines, "left       nothing"]
