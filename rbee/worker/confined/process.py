"""A confined process as its owner sees it: started at its first use, ended when it overruns, started again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from typing import Any, Final

from rbee.errors import RbeeError
from rbee.worker.confined.frames import decode, encode, frame_bytes

TIME_LIMIT_S: Final = 2.0
MEMORY_LIMIT_BYTES: Final = 256 * 1024 * 1024
_START_S: Final = 30.0
_MB: Final = 1024 * 1024
# Neither the key nor other secrets; the hive's mark stays, by which it would find a process that was left behind.
_INHERITED: Final = ("LANG", "LC_ALL", "TZ", "RBEE_HIVE_MARK")
_PROGRAM: Final = "import sys; sys.path[:] = sys.argv[1:]; from rbee.worker.confined.child import main; "


class OverrunError(Exception):
    """Raised when a request did not end within the limits; says which one."""


class ConfinedProcess:
    """A process that answers requests with the function `handle` of a module, one at a time.

    Only the event loop's thread may use it.

    Args:
        module: the name of the module; it imports only what its work needs.
    """

    def __init__(self, module: str) -> None:
        self._module = module
        self._lock = asyncio.Lock()
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start the process if it does not run, so that the next request need not wait for that."""
        async with self._lock:
            await self._running()

    async def call(self, request: dict[str, Any]) -> Any:
        """Return the answer to *request*, which must be JSON, after those that wait already.

        Raises OverrunError where it took more than `TIME_LIMIT_S` or `MEMORY_LIMIT_BYTES`, or ended the process;
        RbeeError where `handle` did.
        """
        async with self._lock:
            process = await self._running()
            answer: dict[str, Any] = {}
            try:
                async with asyncio.timeout(TIME_LIMIT_S):
                    answer = await _exchange(process, request)
            except TimeoutError:
                raise OverrunError(f"it took more than {TIME_LIMIT_S:g} s") from None
            except (EOFError, OSError, ValueError):
                raise OverrunError("it ended the process that ran it") from None
            finally:
                if "result" not in answer and "error" not in answer:  # cancelled, too: its answer would still come
                    await self._kill()
        if "exhausted" in answer:
            raise OverrunError(f"it took more than {MEMORY_LIMIT_BYTES // _MB} MB")
        error = RbeeError.from_body(answer)
        if error is not None:
            raise error
        return answer["result"]

    async def close(self) -> None:
        """End the process."""
        async with self._lock:
            await self._kill()

    async def _running(self) -> asyncio.subprocess.Process:
        process = self._process
        if process is None or process.returncode is not None:
            process = self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", "-c"),
                _PROGRAM + f"main({self._module!r}, {MEMORY_LIMIT_BYTES})",
                *filter(None, sys.path),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                env={name: os.environ[name] for name in _INHERITED if name in os.environ},
                start_new_session=True,
            )
            started = False
            try:
                async with asyncio.timeout(_START_S):
                    started = bool(await _receive(process))
            except (EOFError, OSError, TimeoutError, ValueError):
                raise OverrunError("the process that would run it does not start") from None
            finally:
                if not started:
                    await self._kill()
        return process

    async def _kill(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            with contextlib.suppress(ConnectionError):
                await process.communicate()


async def _exchange(process: asyncio.subprocess.Process, request: dict[str, Any]) -> dict[str, Any]:
    assert process.stdin is not None
    process.stdin.write(encode(request))
    await process.stdin.drain()
    return await _receive(process)


async def _receive(process: asyncio.subprocess.Process) -> dict[str, Any]:
    assert process.stdout is not None
    head = await process.stdout.readexactly(4)
    return decode(await process.stdout.readexactly(frame_bytes(head)))
