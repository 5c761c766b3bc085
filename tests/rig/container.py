"""One Debian machine as systemd-nspawn runs it: an overlay over the shared tree, booted in its own namespace."""

from __future__ import annotations

import signal
import subprocess
import threading
from pathlib import Path

import psutil

from tests.rig import cgroups
from tests.rig.commands import RigError, attempt, call
from tests.rig.mounts import remove_tree, unmount_below
from tests.support.waiting import eventually, slowness

# What nspawn ends with when the machine inside asked for a reboot.
_REBOOT = 133


class Container:
    """A machine that can be booted, stopped, cut off from power, and made bare again.

    *folder* holds its files, *name* is unique on this machine, *hostname* is what the inside sees.
    """

    def __init__(self, name: str, *, hostname: str, folder: Path, base: Path, namespace: str) -> None:
        self.name = name
        self.hostname = hostname
        self.folder = folder
        self.root = folder / "root"
        self.log = folder / "console.log"
        self._base = base
        self._namespace = namespace
        self._process: subprocess.Popen[bytes] | None = None
        self._watcher: threading.Thread | None = None
        self._wanted = False

    def mount(self) -> None:
        """Give it a fresh disk: nothing but the shared tree."""
        for part in ("upper", "work", "root"):
            (self.folder / part).mkdir(parents=True)
        options = f"lowerdir={self._base},upperdir={self.folder}/upper,workdir={self.folder}/work"
        call("mount", "-t", "overlay", f"rbee-rig-{self.name}", "-o", options, self.root)

    def wipe(self) -> None:
        """Throw its disk away; the machine must be off."""
        assert not self.running, f"{self.name} still runs"
        unmount_below(self.root)
        for part in ("upper", "work", "root"):
            remove_tree(self.folder / part)

    @property
    def running(self) -> bool:
        """Whether its power is on."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Turn its power on; it reboots by itself when the inside asks for it."""
        if self.running:
            return
        self._wanted = True
        self._spawn()
        self._watcher = threading.Thread(target=self._watch, name=f"rig-{self.name}", daemon=True)
        self._watcher.start()

    def _spawn(self) -> None:
        argv = [
            "systemd-nspawn",
            "--quiet",
            "--boot",
            "--register=no",
            "--keep-unit",
            f"--directory={self.root}",
            f"--machine={self.name}",
            f"--hostname={self.hostname}",
            f"--network-namespace-path=/run/netns/{self._namespace}",
            "--resolv-conf=off",
            "--timezone=off",
            "--console=pipe",
        ]
        with self.log.open("ab") as log:
            # A session of its own, so that a Ctrl-C for the tests does not pull the plug in the middle of a teardown.
            self._process = subprocess.Popen(
                cgroups.within(self.name, argv),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _watch(self) -> None:
        while self._process is not None:
            if self._process.wait() != _REBOOT or not self._wanted:
                return
            self._spawn()

    @property
    def init(self) -> int | None:
        """The machine's process 1 as this machine counts it; None if it is off or only coming up."""
        return init_of(self._process.pid) if self._process is not None and self.running else None

    def stop(self, within: float = 20) -> None:
        """Shut it down in order; where that takes longer than *within* seconds, pull the plug."""
        self._wanted = False
        if self._process is None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(within)
        except subprocess.TimeoutExpired:
            self.power_cut()
        self._ended()

    def power_cut(self) -> None:
        """Pull the plug: every process in it is gone at once, and nothing is written any more."""
        self._wanted = False
        if self._process is None or not self.running:
            return
        # Never the nspawn process: its machine would live on without it. It ends by itself when process 1 does.
        eventually(lambda: self.init or not self.running, within=10, because=f"{self.name} has a process 1")
        pull_plug(self._process.pid)
        try:
            self._process.wait(30 * slowness())
        except subprocess.TimeoutExpired:
            raise RigError(f"{self.name} survived its power cut; see {self.log}") from None
        self._ended()

    def _ended(self) -> None:
        if self._watcher is not None:
            self._watcher.join(10)

    def enter(self, *argv: str) -> list[str]:
        """Give the command that runs *argv* as root inside, past the network and SSH; works while it is off too."""
        init = self.init
        if init is None:
            return ["chroot", str(self.root), *argv]
        return ["nsenter", f"--target={init}", "--mount", "--uts", "--ipc", "--net", "--pid", "--", *argv]


def init_of(nspawn: int) -> int | None:
    """Find process 1 of the machine that an nspawn process runs: its child that leads a namespace of processes."""
    try:
        children = psutil.Process(nspawn).children()
        for child in children:
            status = Path(f"/proc/{child.pid}/status").read_text(encoding="utf-8")
            numbers = next(line for line in status.splitlines() if line.startswith("NSpid:")).split()[1:]
            if len(numbers) > 1 and numbers[-1] == "1":
                return int(child.pid)
    except (psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
        return None
    return None


def pull_plug(nspawn: int) -> None:
    """Kill process 1 of the machine that an nspawn process runs, if it still has one."""
    init = init_of(nspawn)
    if init is not None:
        attempt("kill", "-KILL", str(init))


def nspawns(start: str) -> list[psutil.Process]:
    """List the nspawn processes whose machine has a name that starts with *start*."""
    found = []
    for process in psutil.process_iter():
        try:
            words = process.cmdline()
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        if words and Path(words[0]).name == "systemd-nspawn" and any(w.startswith(f"--machine={start}") for w in words):
            found.append(process)
    return found
