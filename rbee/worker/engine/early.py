"""Load a small model for the CPU while the interpreter still imports what it takes to read the settings.

Both take about as long, and the load needs the interpreter only to begin. It is a guess from the command line: whoever
knows the settings takes the model if it is what they ask for, or lets go of it; what is wrong with the file is found
out then too.
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
from rbee.worker.engine import llama_library, model_file

_ENGINE: Final = "RBEE_WORKER_ENGINE"
_BEGUN_WITHIN_S: Final = 1.0


class EarlyModel:
    """A model file that is being loaded in a thread of its own."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._model: int | None = None
        self._kept: Any = None
        self._begun = threading.Event()
        self._thread = threading.Thread(target=self._run, name="early model", daemon=True)
        self._thread.start()

    def wait_begun(self) -> None:
        """Wait until the interpreter is free for others, or there is nothing to load."""
        self._begun.wait(_BEGUN_WITHIN_S)

    def take(self) -> int | None:
        """Wait for the model and give it away; None where it could not be loaded."""
        self._thread.join()
        model, self._model = self._model, None
        return model

    def _run(self) -> None:
        with contextlib.suppress(RbeeError, ImportError):
            model_file.check(self.path)
            lib = llama_library.functions()
            params, devices = llama_library.model_params(lib, None, mmap=True)
            self._kept = llama_library.nobody(lib), devices
            lib.llama_log_set(self._kept[0], None)
            lib.llama_backend_init()
            self._begun.set()
            self._model = lib.llama_model_load_from_file(os.fsencode(self.path), params) or None
        self._begun.set()


def begin(argv: Sequence[str], environ: Mapping[str, str]) -> EarlyModel | None:
    """Begin to load the model that the command line names, if it is a small one and for the CPU."""
    named = dict(pairwise(argv))
    path = Path(named.get("--model-path", ""))
    if named.get("--backend") != "cpu" or "--engine" in named or _ENGINE in environ:
        return None
    try:
        small = path.stat().st_size < llama_library.PROGRESS_WORTH_BYTES
    except OSError:
        return None
    return EarlyModel(path) if small else None
