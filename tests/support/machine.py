"""One machine of its own for a test: a home, free ports, a config, and the real programs run in it."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from tests.support.commands import Result, Running
from tests.support.waiting import eventually, slowness

BIN = Path(sys.executable).parent
PROGRAMS = ("rbee-keeper", "queen-rbee", "rbee-hive", "llm-worker-rbee")
# What a run of all tests says of their workers; tests/conftest.py sets it.
KEPT = ("RBEE_WORKER_THREADS",)


class Machine:
    """A machine with nothing but rbee installed on it.

    `config` holds the tables of its config file as text; change it before the first command.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.user_home = root / "user"
        self.home = root / "user" / ".rbee"
        self.home.mkdir(parents=True)
        self.ports = PortBlock()
        self.queen_port, self.hive_port, self.worker_port = self.ports[0], self.ports[1], self.ports[5]
        self.tables: dict[str, dict[str, Any]] = {
            "": {"queen_url": f"http://127.0.0.1:{self.queen_port}"},
            "queen": {"port": self.queen_port, "local_hive_port": self.hive_port},
            # No process that no scenario has started; the spare worker has tests of its own.
            "hive": {"first_worker_port": self.worker_port, "spare_worker": False},
            "models": {},
        }
        self.env: dict[str, str] = {}
        self.writes_config = True
        self._count = 0
        self._running: list[Running] = []

    def configure(self, table: str, **values: Any) -> None:
        """Set keys of one table of the config file (`""` is its top level)."""
        self.tables.setdefault(table, {}).update(values)

    def fake(self, **options: Any) -> None:
        """Tell the fake engine how to behave (`worker.engine.fake.FakeOptions`)."""
        self.tables["worker"].setdefault("fake", {}).update(options)

    def environ(self) -> dict[str, str]:
        """Give the environment of every command on this machine."""
        self._write_config()
        base = {key: value for key, value in os.environ.items() if not key.startswith("RBEE_") or key in KEPT}
        base["PATH"] = f"{BIN}:{base.get('PATH', '')}"
        # What takes minutes to make is shared with everybody on the real machine: the wheels of llama.cpp.
        cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
        own = {"HOME": str(self.user_home), "RBEE_HOME": str(self.home), "XDG_CACHE_HOME": cache}
        return {**base, **own, **self.env}

    def run(self, *argv: str, within: float = 60, stdin: str | None = None) -> Result:
        """Run a command to its end."""
        began = time.monotonic()
        done = subprocess.run(
            [str(BIN / argv[0]), *argv[1:]],
            env=self.environ(),
            input=stdin if stdin is not None else "",
            capture_output=True,
            text=True,
            timeout=within * slowness(),
            check=False,
            cwd=self.root,
        )
        return Result(list(argv), done.returncode, done.stdout, done.stderr, time.monotonic() - began)

    def start(self, *argv: str) -> Running:
        """Start a command and leave it running."""
        self._count += 1
        out, err = self.root / f"out-{self._count}", self.root / f"err-{self._count}"
        with out.open("wb") as stdout, err.open("wb") as stderr:
            process = subprocess.Popen(
                [str(BIN / argv[0]), *argv[1:]],
                env=self.environ(),
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                cwd=self.root,
            )
        running = Running(list(argv), process, out, err)
        self._running.append(running)
        return running

    def processes(self, program: str | None = None) -> list[psutil.Process]:
        """List the rbee processes of this machine, known by their home; *program* picks one kind."""
        return processes_of(self.home, program)

    def process(self, program: str) -> psutil.Process:
        """Give the one process of *program*; waits a moment for it to appear."""
        return eventually(lambda: self.processes(program), within=15, because=f"{program} runs")[0]

    def log(self, name: str) -> str:
        """Read a daemon's log file below the home; empty if there is none."""
        path = self.home / "logs" / name
        return path.read_text() if path.exists() else ""

    def logs(self) -> dict[str, str]:
        """Read all log files."""
        return {path.name: path.read_text() for path in sorted((self.home / "logs").glob("*.log"))}

    def close(self) -> None:
        """End everything that was started here, kindly at first."""
        for running in self._running:
            if running.process.poll() is None:
                running.process.send_signal(signal.SIGTERM)
        # Owners first: they take their own down, and nobody is told twice.
        for program in PROGRAMS:
            left = self.processes(program)
            for process in left:
                _quietly(process.terminate)
            psutil.wait_procs(left, timeout=10)
        for process in self.processes():
            _quietly(process.kill)
        for running in self._running:
            running.process.kill()
            running.process.wait()
        self.ports.close()

    def _write_config(self) -> None:
        if not self.writes_config:
            return
        lines = []
        for table, values in self.tables.items():
            lines += [f"[{table}]"] if table else []
            lines += [f"{key} = {_toml(value)}" for key, value in values.items()]
        path = self.home / "config.toml"
        if os.access(self.home, os.W_OK):
            path.write_text("\n".join(lines) + "\n")


def processes_of(home: Path, program: str | None = None) -> list[psutil.Process]:
    """List the rbee processes with a home; *program* picks one kind."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("RBEE_HOME") != str(home):
                continue
            name = next((Path(part).name for part in process.cmdline()[:3] if Path(part).name in PROGRAMS), None)
            if name is not None and process.status() != psutil.STATUS_ZOMBIE and program in (None, name):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


class PortBlock:
    """Ten ports in a row that nobody listens on and no other test process takes, until it is closed."""

    SIZE = 10

    def __init__(self) -> None:
        locks = Path(tempfile.gettempdir()) / "rbee-test-ports"
        locks.mkdir(exist_ok=True)
        # Below the range that the kernel hands out itself.
        for first in range(12000, 32000, self.SIZE):
            self._lock = (locks / str(first)).open("w")
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._lock.close()
                continue
            if all(_is_free(port) for port in range(first, first + self.SIZE)):
                self.first = first
                return
            self._lock.close()
        raise AssertionError("no ten free ports in a row")

    def __getitem__(self, index: int) -> int:
        """Give one of the ports."""
        return range(self.first, self.first + self.SIZE)[index]

    def close(self) -> None:
        """Let others have the ports."""
        self._lock.close()


_KEPT: list[PortBlock] = []


def free_ports(count: int) -> list[int]:
    """Take ports in a row that nobody has, for as long as this test process lives."""
    _KEPT.append(PortBlock())
    return [_KEPT[-1][index] for index in range(count)]


def _is_free(port: int) -> bool:
    with socket.socket() as sock:
        # Without SO_REUSEADDR: a port on which old connections still linger is not free for everybody.
        try:
            sock.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _toml(value: Any) -> str:
    """Write a value as TOML: JSON, but for tables."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {_toml(inner)}" for key, inner in value.items()) + "}"
    return json.dumps(value)


def _quietly(action: Any) -> None:
    try:
        action()
    except psutil.NoSuchProcess:
        return
