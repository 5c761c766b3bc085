"""A rig that stays up for a person: a process in the background holds it until it is told to end.

Both sides share a note in the rig's folder that says who holds it. A standing rig is known by its inventory.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType

import psutil

from tests.rig.claims import HOME, rigs
from tests.rig.commands import RigError, RigUnavailable
from tests.rig.inventory import remove_inventory
from tests.rig.rig import Rig
from tests.support.checkout import ROOT
from tools.longstep import say

INVENTORY = ROOT / "inventory" / "rig"
_NOTE = "standing.json"


@dataclass(frozen=True)
class Note:
    """What is known about a standing rig from outside the process that holds it."""

    number: int
    pid: int
    began: float
    hosts: dict[str, str]
    key: str
    known_hosts: str
    repository: str
    inventory: str


def standing(inventory: Path) -> list[Note]:
    """List the rigs that were raised for an inventory folder and whose holder lives."""
    notes = []
    for number, held in rigs().items():
        path = HOME / str(number) / _NOTE
        if held and path.exists():
            note = Note(**json.loads(path.read_text(encoding="utf-8")))
            if Path(note.inventory).parent == inventory.resolve():
                notes.append(note)
    return notes


def raise_rig(hosts: int, inventory: Path) -> Note:
    """Start a holder in the background and wait until its hosts answer. Raises RigError with its words if not."""
    reader, writer = os.pipe()
    argv = ["hold", "--hosts", str(hosts), "--inventory", str(inventory.resolve()), "--tell", str(writer)]
    holder = subprocess.Popen(
        [sys.executable, "-m", "tests.rig", *argv],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        pass_fds=(writer,),
        start_new_session=True,
    )
    os.close(writer)
    try:
        with os.fdopen(reader, encoding="utf-8") as told:
            said = json.loads(told.readline() or '{"error": "the process that holds the rig ended without a word"}')
    except BaseException:
        holder.terminate()
        holder.wait()
        raise
    if "error" in said:
        holder.wait()
        raise (RigUnavailable if said.get("unavailable") else RigError)(said["error"])
    # It is meant to outlive this process, which therefore must not complain about a child of its own.
    holder.returncode = 0
    return Note(**said)


def hold(hosts: int, inventory: Path, tell: int) -> int:
    """Hold a rig until a signal comes; *tell* is the open file that hears once how it went."""
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGINT, _end)
    rig = Rig(hosts, tell=say)
    try:
        with os.fdopen(tell, "w", encoding="utf-8") as teller:
            try:
                rig.open()
            except RigError as failure:
                unavailable = isinstance(failure, RigUnavailable)
                teller.write(json.dumps({"error": str(failure), "unavailable": unavailable}) + "\n")
                return 1
            note = _write(rig, inventory)
            teller.write(json.dumps(asdict(note)) + "\n")
        _be_silent(rig.folder / "holder.log")
        threading.Event().wait()
    finally:
        remove_inventory(inventory)
        rig.close()
    return 0


def lower(note: Note, *, within: float = 60) -> None:
    """End a standing rig. Raises RigError if its holder does not end."""
    holder = psutil.Process(note.pid)
    if abs(holder.create_time() - note.began) > 1:
        raise RigError(f"process {note.pid} is no longer the one that held rig {note.number}")
    holder.terminate()
    try:
        holder.wait(within)
    except psutil.TimeoutExpired:
        raise RigError(f"process {note.pid}, which holds rig {note.number}, does not end") from None


def _write(rig: Rig, inventory: Path) -> Note:
    hosts = rig.write_inventory(inventory)
    me = psutil.Process()
    note = Note(
        number=rig.number,
        pid=me.pid,
        began=me.create_time(),
        hosts={host.name: host.address for host in rig},
        key=str(rig.key),
        known_hosts=str(rig.known_hosts),
        repository=rig.repository.url,
        inventory=str(hosts),
    )
    (rig.folder / _NOTE).write_text(json.dumps(asdict(note)), encoding="utf-8")
    return note


def _be_silent(log: Path) -> None:
    """Let go of the terminal, and of a pipe that somebody waits on."""
    with log.open("ab") as sink:
        os.dup2(sink.fileno(), 1)
        os.dup2(sink.fileno(), 2)


def _end(number: int, frame: FrameType | None) -> None:
    # A second signal must not stop the teardown half-way.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.exit(0)
