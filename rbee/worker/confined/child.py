"""The confined process: it answers one request after the other, with little memory, until its owner closes the pipe.

It imports only what its work needs, and a request that takes too long is ended by its owner, with the whole process.
"""

from __future__ import annotations

import importlib
import os
import resource
import signal
import threading
from collections.abc import Callable
from typing import Any, Final

from rbee import lifeline
from rbee.errors import RbeeError
from rbee.worker.confined.frames import decode, encode, frame_bytes

_OWNER: Final = 0  # file descriptors
_ANSWERS: Final = 1
# The engine has more room: what does not overrun this stack does not overrun that of a thread of the worker.
_STACK_BYTES: Final = 2 * 1024 * 1024


def main(module: str, memory_bytes: int) -> None:
    """Answer requests with the function `handle` of *module*, in *memory_bytes* beyond what the process has now."""
    lifeline.die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C at a terminal is for the keeper
    handle: Callable[[dict[str, Any]], Any] = importlib.import_module(module).handle
    _limit_memory(memory_bytes)
    threading.stack_size(_STACK_BYTES)
    thread = threading.Thread(target=_serve, args=(handle,))
    thread.start()
    thread.join()


def _serve(handle: Callable[[dict[str, Any]], Any]) -> None:
    _write(encode({"ready": True}))
    while (request := _read()) is not None:
        try:
            answer = {"result": handle(request)}
        except RbeeError as error:
            answer = error.body()
        except MemoryError:
            # What has failed to get memory may be broken: a new process goes on.
            _write(encode({"exhausted": "memory"}))
            os._exit(1)
        _write(encode(answer))


def _limit_memory(extra: int) -> None:
    try:
        with open("/proc/self/statm", encoding="ascii") as statm:  # noqa: PTH123 (pathlib would be imported for this)
            mapped = int(statm.read().split()[0]) * resource.getpagesize()
    except OSError:  # no such file system: macOS, which does not hold a process to this limit either
        return
    limit = mapped + extra
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _read() -> dict[str, Any] | None:
    head = _exactly(4)
    body = None if head is None else _exactly(frame_bytes(head))
    return None if body is None else decode(body)


def _exactly(count: int) -> bytes | None:
    data = bytearray()
    while len(data) < count:
        piece = os.read(_OWNER, count - len(data))
        if not piece:
            return None
        data += piece
    return bytes(data)


def _write(data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(_ANSWERS, view) :]
