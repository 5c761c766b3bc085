"""The process of the hive on the queen's own machine: what it takes to launch one.

It is launched before the rest of the queen's own imports: here is nothing that takes long to import.
"""

from __future__ import annotations

import errno
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rbee.config.paths import Paths, storage_error
from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError
from rbee.lifeline import Lifeline, LifelineReader
from rbee.queen.hive_begun import PROGRAM, HiveBegun

HOST = "127.0.0.1"
PORTS_TRIED = 100
TAIL_LINES = 8


@dataclass(slots=True)
class HiveProcess:
    """One hive process: its port as asked for, the line to it, and where in its log its words begin, in bytes."""

    process: subprocess.Popen[bytes]
    line: Lifeline
    port: int
    log_start: int
    reader: LifelineReader | None = None


@dataclass(frozen=True, slots=True)
class HiveLauncher:
    """How the local hive is launched.

    Args:
        key: the key that will open it.
        environ: what it inherits, but for the queen's own.
        ephemeral: it serves one command, so that a spare worker would be of no use.
    """

    paths: Paths
    key: str
    environ: Mapping[str, str]
    ephemeral: bool = False

    @property
    def log_path(self) -> Path:
        """Give the file that it logs to."""
        return self.paths.logs / "rbee-hive.log"

    def launch(self, port: int, begun: HiveBegun | None = None) -> HiveProcess:
        """Start it, or let *begun* go on, and do not wait; call from the main thread.

        Raises RbeeError WORKER_BINARY_NOT_FOUND, DISK_FULL or PERMISSION_DENIED.
        """
        try:
            self.paths.make(self.paths.logs)
            with self.log_path.open("ab") as log_file:
                log_start = log_file.tell()
                begun = begun or HiveBegun(hive_program(), self.environ, log_file)
        except OSError as error:
            raise storage_error(error, self.log_path) from error
        home = str(self.paths.home)
        arguments = ["--host", HOST, "--port", str(port)]
        if self.ephemeral:
            arguments += ["--spare-worker", "false"]
        env = {"RBEE_HOME": home, "RBEE_HIVE_API_KEY": self.key}
        begun.order(arguments, env, str(self.log_path))
        return HiveProcess(begun.process, begun.line, port, log_start)


def hive_program() -> str:
    """Find `rbee-hive`: beside this interpreter, else on the path. Raises RbeeError with the install command."""
    beside = Path(sys.executable).parent / PROGRAM
    found = str(beside) if beside.is_file() else shutil.which(PROGRAM)
    if found is None:
        raise RbeeError(
            ErrorCode.WORKER_BINARY_NOT_FOUND,
            f"The program {PROGRAM} is neither beside {sys.executable} nor on the path.",
            hint="Install it: pip install 'rbee[local]'; or run the queen with --local-hive false.",
        )
    return found


def free_port(first: int) -> int:
    """Give the first port from *first* up that can be bound; 0 stays 0. Raises RbeeError PORT_IN_USE."""
    if first == 0:
        return 0
    for port in range(first, min(first + PORTS_TRIED, 65536)):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError as error:
                if error.errno in (errno.EADDRINUSE, errno.EACCES):
                    continue
                raise
            return port
    raise RbeeError(
        ErrorCode.PORT_IN_USE, f"No port from {first} to {first + PORTS_TRIED - 1} is free for the local hive."
    )


def tail(path: Path, start: int = 0, lines: int = TAIL_LINES) -> list[str]:
    """Give the last lines of a log from byte *start* on; none where it cannot be read."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(start, size - 64 * 1024))
            return file.read().decode("utf-8", "replace").splitlines()[-lines:]
    except OSError:
        return []
