"""Launch the process of the hive on the queen's own machine.

That happens before most of the queen's imports: nothing here takes long to import.
"""

from __future__ import annotations

import errno
import socket
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rbee.config.paths import Paths, storage_error
from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError
from rbee.lifeline import Lifeline, LifelineReader
from rbee.programs import require_program, start_error
from rbee.queen.local_hive.prestart import PROGRAM, PrestartedHive

HOST = "127.0.0.1"
PORTS_TRIED = 100


@dataclass(slots=True)
class HiveProcess:
    """One hive process: the requested port, its lifeline, and the byte of its log at which it began."""

    process: subprocess.Popen[bytes]
    line: Lifeline
    port: int
    log_start: int
    reader: LifelineReader | None = None


@dataclass(frozen=True, slots=True)
class HiveLauncher:
    """How the local hive is launched.

    Args:
        key: its API key.
        environ: the environment that it inherits, but for the queen's own settings.
        ephemeral: whether it serves one command only, for which a spare worker would be of no use.
    """

    paths: Paths
    key: str
    environ: Mapping[str, str]
    ephemeral: bool = False

    @property
    def log_path(self) -> Path:
        """Return the file that it logs to."""
        return self.paths.logs / "rbee-hive.log"

    def launch(self, port: int, prestarted: PrestartedHive | None = None) -> HiveProcess:
        """Start it, or pass *prestarted* its arguments, and do not wait; call from the main thread.

        Raises RbeeError WORKER_BINARY_NOT_FOUND, DISK_FULL or PERMISSION_DENIED.
        """
        program = ""
        try:
            self.paths.make(self.paths.logs)
            with self.log_path.open("ab") as log_file:
                log_start = log_file.tell()
                if prestarted is None:
                    program = hive_program()
                    prestarted = PrestartedHive(program, self.environ, log_file)
        except OSError as error:
            if error.filename == program:
                raise start_error(program, error) from error
            raise storage_error(error, self.log_path) from error
        home = str(self.paths.home)
        arguments, env = ["--host", HOST, "--port", str(port)], {"RBEE_HOME": home, "RBEE_HIVE_API_KEY": self.key}
        if self.ephemeral:
            arguments += ["--spare-worker", "false"]
        prestarted.line.give_arguments(arguments, env, str(self.log_path))
        return HiveProcess(prestarted.process, prestarted.line, port, log_start)


def hive_program() -> str:
    """Find `rbee-hive`. Raises RbeeError with the install command."""
    hint = "Install it: pip install 'rbee[local]'; or run the queen with --local-hive false."
    return str(require_program(PROGRAM, hint))


def free_port(first: int) -> int:
    """Return the first port from *first* up that can be bound; 0 stays 0. Raises RbeeError PORT_IN_USE."""
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
