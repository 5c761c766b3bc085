"""Be a spare worker: import everything, then wait for the orders of the hive.

A spare has no model, no GPU context and no port; its start after the orders costs little more than the load alone.
The orders are `{"argv": [...], "env": {...}, "log": PATH}`, sent over the lifeline, so that the key stays secret.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import threading
from typing import Final

from rbee.lifeline import OwnerLink

READY: Final = {"spare": "ready"}
TAKEN: Final = {"spare": "taken"}
_MODULES: Final = (
    "rbee.daemonkit.cli",
    "rbee.worker.app",
    "rbee.worker.settings",
    "rbee.worker.engine.llama_load",
    "uvicorn.protocols.websockets.websockets_sansio_impl",
    "uvloop",
)
_NICE: Final = 10


def prepare(owner: OwnerLink) -> None:
    """Import what a worker needs, and report it."""
    # Priority belongs to a thread on Linux: the importing one ends, and the worker runs with the usual priority.
    importing = threading.Thread(target=_import_all, name="imports")
    importing.start()
    importing.join()
    owner.tell(READY)


def await_orders(owner: OwnerLink) -> list[str]:
    """Wait for the orders and return the arguments in them. Raises OSError where their log cannot be opened."""
    argv = owner.take_arguments()
    owner.tell(TAKEN)
    return argv


def _import_all() -> None:
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
    for name in _MODULES:
        # What is missing is reported when the worker needs it.
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    from rbee.errors import RbeeError
    from rbee.worker.engine import llama_library

    with contextlib.suppress(ImportError, RbeeError):
        llama_library.functions()
