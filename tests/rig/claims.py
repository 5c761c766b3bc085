"""Share one machine between rigs: each claims a number, and what a dead rig left behind is cleared away.

A rig holds a lock on its folder for as long as its process lives; the kernel lets go of it whatever happens.
So a folder that nobody holds belongs to a rig that died, and everything that carries its number may go.
"""

from __future__ import annotations

import fcntl
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import psutil

from tests.rig import cgroups
from tests.rig.commands import RigError, attempt, call
from tests.rig.container import nspawns, pull_plug
from tests.rig.mounts import mounts, mounts_below, remove_tree, unmount_below
from tests.rig.network import Network

# Not in a temporary folder: this one only root can write, and it survives no `rm` of somebody else's.
HOME = Path("/var/lib/rbee-rig")
_NUMBERS = range(1, 255)
# nspawn keeps a rootless copy of its mounts here, and refuses to take it away from a disk.
_NSPAWN = Path("/run/systemd/nspawn")
_MARK = "rbee-rig-nspawn"
_INOTIFY = Path("/proc/sys/fs/inotify/max_user_instances")
_ENOUGH_INOTIFY = 8192


@dataclass(frozen=True)
class Claim:
    """A number that is this rig's own, its folder, and the lock that says so."""

    number: int
    folder: Path
    lock: TextIO

    def release(self) -> None:
        """Take away everything that carries the number, and give the number back."""
        with _turn():
            clear(self.number)
            self.lock.close()
            _settle()


def claim() -> Claim:
    """Clear away what dead rigs left, and take a number that is free. Raises RigError if there is none."""
    with _turn():
        _sweep()
        _prepare()
        for number in _NUMBERS:
            folder = HOME / str(number)
            if not folder.exists() and Network(number).is_free():
                folder.mkdir(mode=0o700)
                lock = (folder / "owner.lock").open("w", encoding="ascii")
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return Claim(number, folder, lock)
    raise RigError("no network 10.213.x.0/24 is free for another rig")


def sweep() -> list[int]:
    """Clear away what dead rigs left, and give their numbers."""
    with _turn():
        swept = _sweep()
        _settle()
    return swept


def rigs() -> dict[int, bool]:
    """List the numbers in use, each with whether its owner lives."""
    return {int(folder.name): _is_held(folder) for folder in _folders()}


def traces(number: int) -> list[str]:
    """List everything on this machine that carries a number: processes, mounts, links, namespaces, files."""
    network = Network(number)
    folder = HOME / str(number)
    groups = cgroups.groups(network.namespace(""))
    return [
        *(f"process {pid}" for pid in _processes(number)),
        *(f"control group {group}" for group in groups),
        *(f"mount {path}" for path in mounts_below(folder)),
        *(f"link {name}" for name in network.links()),
        *(f"namespace {name}" for name in network.namespaces()),
        *([f"folder {folder}"] if folder.exists() else []),
    ]


def hang_up(folder: Path) -> None:
    """End the SSH connections that Ansible keeps open for the next run, alive or dead; see `session_folder`."""
    for socket in session_folder(folder).glob("*"):
        attempt("ssh", "-F", "/dev/null", "-o", f"ControlPath={socket}", "-O", "exit", "rig", within=10)
        socket.unlink(missing_ok=True)


def session_folder(folder: Path) -> Path:
    """Give the folder for the sockets of connections that are kept open to the hosts of one rig."""
    return folder / "cp"


def clear(number: int) -> None:
    """End, unmount and remove everything that carries a number. Raises RigError with what resists."""
    network = Network(number)
    folder = HOME / str(number)
    hang_up(folder)
    machines = nspawns(network.namespace(""))
    for process in machines:
        _tell(process, signal.SIGTERM)
    _, stubborn = psutil.wait_procs(machines, timeout=5)
    for process in stubborn:
        pull_plug(process.pid)
    psutil.wait_procs(stubborn, timeout=10)
    for pid in _processes(number):
        # Machines without their nspawn, which someone killed; they live in a namespace or a group of ours alone.
        attempt("kill", "-KILL", str(pid))
    _until_gone(lambda: _processes(number))
    for group in cgroups.groups(network.namespace("")):
        cgroups.remove(group)
    unmount_below(folder)
    network.close()
    _until_gone(network.links)
    if left := [trace for trace in traces(number) if trace != f"folder {folder}"]:
        raise RigError(f"rig {number} could not be cleared away; left: {', '.join(left)}")
    remove_tree(folder)


def _processes(number: int) -> list[int]:
    network = Network(number)
    machines = [process.pid for process in nspawns(network.namespace(""))]
    grouped = [pid for group in cgroups.groups(network.namespace("")) for pid in cgroups.members(group)]
    return sorted({*machines, *network.inhabitants(), *grouped})


@contextmanager
def _turn() -> Iterator[None]:
    """Let one process at a time make or clear away rigs."""
    HOME.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (HOME / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _sweep() -> list[int]:
    dead = [int(folder.name) for folder in _folders() if not _is_held(folder)]
    for number in dead:
        clear(number)
    return dead


def _folders() -> list[Path]:
    return sorted(path for path in HOME.iterdir() if path.name.isdigit()) if HOME.exists() else []


def _is_held(folder: Path) -> bool:
    try:
        with (folder / "owner.lock").open("a", encoding="ascii") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


def _prepare() -> None:
    """Set up what all rigs of this machine share."""
    _NSPAWN.mkdir(parents=True, exist_ok=True)
    if call("stat", "--file-system", "--format=%T", _NSPAWN).strip() != "tmpfs":
        call("mount", "-t", "tmpfs", _MARK, _NSPAWN)
    # Each systemd takes about six; with the usual 128 the 22nd host hangs. Raised until this machine's next boot.
    if int(_INOTIFY.read_text(encoding="ascii")) < _ENOUGH_INOTIFY:
        _INOTIFY.write_text(str(_ENOUGH_INOTIFY), encoding="ascii")


def _settle() -> None:
    """Take away what all rigs share, once there is none."""
    if not _folders() and any(source == _MARK for source, _ in mounts()):
        attempt("umount", _NSPAWN)


def _tell(process: psutil.Process, number: signal.Signals) -> None:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return


def _until_gone(look: Callable[[], Sequence[object]]) -> None:
    deadline = time.monotonic() + 10
    while look() and time.monotonic() < deadline:
        time.sleep(0.02)
