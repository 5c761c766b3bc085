"""Run worker processes: children that cannot outlive the hive, with a lifeline and a log."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psutil

from rbee.config.paths import storage_error
from rbee.contracts.devices import Backend
from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError
from rbee.hive.memory import LoadOptions
from rbee.hive.workers.control_groups import ControlGroup
from rbee.lifeline import Lifeline, LifelineReader
from rbee.logfile import tail
from rbee.net import host_port
from rbee.programs import require_program, start_error

PROGRAM: Final = "llm-worker-rbee"
MARK: Final = "RBEE_HIVE_MARK"
_PEAK: Final = re.compile(r"^VmHWM:\s+(\d+) kB$", re.MULTILINE)
_TAIL_LINES: Final = 20
# A worker does not need these, and what it does not have cannot leak.
_WITHHELD: Final = ("RBEE_API_KEY", "RBEE_HIVE_", "RBEE_QUEEN_", "HF_TOKEN", "NOTIFY_SOCKET", "CREDENTIALS_DIRECTORY")


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """What a worker process gets on its command line and in its environment."""

    worker_id: str
    model_path: str
    model_ref: str
    load: LoadOptions
    device: int
    host: str
    port: int
    callback_url: str
    api_key: str
    threads: int | None = None
    chat_template_file: str | None = None

    @property
    def backend(self) -> Backend:
        """Return what it computes on."""
        return self.load.backend

    @property
    def url(self) -> str:
        """Return where the worker listens."""
        return f"http://{host_port(self.host, self.port)}"

    def environment(self) -> dict[str, str]:
        """Return what the environment of the worker has beyond that of every worker."""
        return {"RBEE_WORKER_API_KEY": self.api_key}

    def arguments(self) -> list[str]:
        """Return the command line, without secrets and without what the worker is to choose by itself."""
        load = self.load
        flash = None if load.flash_attention is None else str(load.flash_attention).lower()
        choices = {
            "--prompt-batch": load.prompt_batch,
            "--flash-attention": flash,
            "--threads": self.threads,
            "--chat-template-file": self.chat_template_file,
        }
        chosen = [(name, str(value)) for name, value in choices.items() if value is not None]
        return [
            *("--worker-id", self.worker_id),
            *("--model-path", self.model_path),
            *("--model-ref", self.model_ref),
            *("--backend", load.backend.value),
            *("--device", str(self.device)),
            *("--slots", str(load.slots)),
            *("--context-length", str(load.context_length)),
            *("--host", self.host),
            *("--port", str(self.port)),
            *("--callback-url", self.callback_url),
            *("--cache-type", load.cache_type),
            *("--speculate", str(load.speculate)),
            *(word for pair in chosen for word in pair),
        ]


_INSTALL: Final = "Correct worker_binary of the hive, or install it: pip install 'rbee[worker]'"


def worker_program(configured: str | None) -> Path:
    """Return the worker program. Raises RbeeError WORKER_BINARY_NOT_FOUND that says where it was looked for."""
    if configured is not None:
        path = Path(configured).expanduser()
        if path.is_file() and os.access(path, os.X_OK):
            return path
        raise RbeeError(
            ErrorCode.WORKER_BINARY_NOT_FOUND,
            f"The worker program was not found: {path} (setting worker_binary) is not an executable file.",
            hint=f"Make it executable: chmod +x {path}" if path.is_file() else _INSTALL,
        )
    return require_program(PROGRAM)


def hive_mark(home: Path) -> str:
    """Return the mark in the environment of the workers of the hive with this home."""
    return str(home.resolve())


class WorkerProcess:
    """A running worker: its process, its lifeline, its log, its control group if it has one."""

    def __init__(
        self, process: asyncio.subprocess.Process, line: Lifeline, lifeline: LifelineReader, log_path: Path
    ) -> None:
        self._process = process
        self._line = line
        self._lifeline = lifeline
        self.log_path = log_path
        self.pid = process.pid
        self.group: ControlGroup | None = None

    @classmethod
    async def start(
        cls, program: Path, arguments: Sequence[str], *, env: Mapping[str, str], home: Path, log_path: Path
    ) -> WorkerProcess:
        """Start a worker, or a spare one, with *env* in addition.

        Call it in the main thread: the parent-death signal follows the thread that spawned.

        Raises RbeeError WORKER_START_FAILED, or DISK_FULL or PERMISSION_DENIED for its log.
        """
        lifeline = Lifeline()
        env = {
            **_inherited(os.environ),
            **lifeline.env(),
            "RBEE_HOME": str(home),
            **env,
            MARK: hive_mark(home),
            # CUDA counts devices by speed unless told to count as the driver's library does, which detection asked.
            "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        }
        try:
            log_fd = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        except OSError as error:
            lifeline.close()
            raise storage_error(error, log_path) from error
        try:
            process = await asyncio.create_subprocess_exec(
                str(program),
                *arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log_fd,
                stderr=log_fd,
                env=env,
                pass_fds=(lifeline.child_fd,),
                # Ctrl-C at a terminal is for the keeper; a hive stops its workers itself.
                start_new_session=True,
            )
        except OSError as error:
            lifeline.close()
            raise start_error(program, error, ErrorCode.WORKER_START_FAILED) from error
        finally:
            os.close(log_fd)
        lifeline.spawned()
        return cls(process, lifeline, await lifeline.open(), log_path)

    @property
    def running(self) -> bool:
        """Return whether the process has not ended."""
        return self._process.returncode is None

    def give_orders(self, arguments: Sequence[str], env: Mapping[str, str], log_path: Path) -> None:
        """Send a spare worker what it would have got when it was started; its output goes to *log_path*."""
        self._line.give_arguments(arguments, env, str(log_path))
        self.log_path = log_path

    async def read_message(self) -> dict[str, Any] | None:
        """Wait for the next report of the worker; None when it is gone."""
        return await self._lifeline.read()

    async def wait(self) -> int:
        """Wait for the end and return the exit code, negative for a signal."""
        code = await self._process.wait()
        self._lifeline.close()
        return code

    def release_group(self) -> str:
        """Remove the control group of the ended process; return in words if the kernel ended it for its memory."""
        if self.group is None:
            return ""
        cause = self.group.ran_out() or ""
        self.group.remove()
        return cause

    def terminate(self) -> None:
        """Send SIGTERM: the worker finishes its requests and ends."""
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()

    def kill(self) -> None:
        """Send SIGKILL."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    def close(self) -> None:
        """Close the lifeline; a process that still lives ends itself."""
        self._lifeline.close()

    def memory_bytes(self) -> int | None:
        """Return the memory that the process holds; None if it is gone."""
        try:
            return int(psutil.Process(self.pid).memory_info().rss)
        except psutil.Error:
            return None

    def peak_bytes(self) -> int | None:
        """Return the most memory that the process has held; None where it is unknown or the process is gone."""
        try:
            status = Path(f"/proc/{self.pid}/status").read_text(encoding="ascii", errors="replace")
        except OSError:
            return None
        found = _PEAK.search(status)
        return int(found[1]) * 1024 if found else None

    def log_tail(self) -> list[str]:
        """Return the last lines it printed."""
        return tail(self.log_path, _TAIL_LINES)


def _inherited(environ: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environ.items() if not name.startswith(_WITHHELD)}
