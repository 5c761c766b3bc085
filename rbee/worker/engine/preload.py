"""Start to load a small model on the CPU before the settings are read, while the interpreter still imports.

Both take about as long, and the load needs the interpreter only to begin. The model is guessed from the command line:
once the settings are read it is used if it is the one that they name, and freed otherwise. Errors of the file are
reported then too.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from rbee.errors import RbeeError
from rbee.gguf import prefix
from rbee.worker.engine import llama_library

_ENGINE: Final = "RBEE_WORKER_ENGINE"
_NATIVE_WITHIN_S: Final = 1.0


class PreloadedModel:
    """A model that is loaded in a thread of its own."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._model: int | None = None
        self._references: Any = None
        self._native = threading.Event()
        self._thread = threading.Thread(target=self._load, name="preload", daemon=True)
        self._thread.start()

    def wait_until_native(self) -> None:
        """Wait until the load no longer needs the interpreter, or has failed."""
        self._native.wait(_NATIVE_WITHIN_S)

    def take(self) -> int | None:
        """Wait for the model and return it, to the first caller only; None where it could not be loaded."""
        self._thread.join()
        model, self._model = self._model, None
        return model

    def _load(self) -> None:
        with contextlib.suppress(RbeeError, ImportError):
            prefix.check_file(self.path)
            lib = llama_library.functions()
            params, devices = llama_library.model_params(lib, None, mmap=True)
            self._references = llama_library.silent_log_callback(lib), devices
            lib.llama_log_set(self._references[0], None)
            lib.llama_backend_init()
            self._native.set()
            self._model = lib.llama_model_load_from_file(os.fsencode(self.path), params) or None
        self._native.set()


def start_preload(argv: Sequence[str], environ: Mapping[str, str]) -> PreloadedModel | None:
    """Start to load the model that the command line names; return None unless it is small and for the CPU."""
    named = dict(pairwise(argv))
    path = Path(named.get("--model-path", ""))
    if named.get("--backend") != "cpu" or "--engine" in named or _ENGINE in environ:
        return None
    try:
        small = path.stat().st_size < llama_library.PROGRESS_WORTH_BYTES
    except OSError:
        return None
    return PreloadedModel(path) if small else None
