"""llama_cpp's foreign functions, without its Python layers, and what every load of a model begins with.

llama_cpp's package imports numpy, jinja2 and more for its high-level class, which the worker does not use; only its
module of foreign functions is imported here, which saves a third of a second of every worker's start.
"""

from __future__ import annotations

import ctypes
import importlib.util
import sys
import types
from typing import Any, Final

from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError

ALL_LAYERS: Final = 10_000
PROGRESS_WORTH_BYTES: Final = 512 * 1024 * 1024  # a smaller model is loaded before its progress is read twice


def functions() -> Any:
    """Import llama_cpp's module of foreign functions without running the package's own `__init__`.

    Raises RbeeError WORKER_START_FAILED where it is not installed.
    """
    if "llama_cpp" not in sys.modules:
        spec = importlib.util.find_spec("llama_cpp")
        if spec is None or spec.submodule_search_locations is None:
            raise RbeeError(
                ErrorCode.WORKER_START_FAILED,
                "llama-cpp-python is not installed here.",
                hint="Install it: pip install 'rbee[worker]'",
            )
        package = types.ModuleType("llama_cpp")
        package.__path__ = list(spec.submodule_search_locations)
        package.__spec__ = spec  # who looks for the package finds it
        sys.modules["llama_cpp"] = package
    import llama_cpp.llama_cpp

    return llama_cpp.llama_cpp


def silent_log_callback(lib: Any) -> Any:
    """Return a log callback that needs no Python: `abs` ignores all but its first argument and changes nothing."""
    return lib.llama_log_callback(ctypes.cast(ctypes.CDLL(None).abs, ctypes.c_void_p).value)


def model_params(lib: Any, device: int | None, *, mmap: bool) -> tuple[Any, Any]:
    """Return the parameters to load a model on *device* only, None for the CPU, and the array that they point to."""
    params = lib.llama_model_default_params()
    # A list that names the one device, or none: llama.cpp would otherwise spread over all it finds.
    devices = (ctypes.c_void_p * 2)(device, None)
    params.devices = ctypes.addressof(devices)
    params.n_gpu_layers = 0 if device is None else ALL_LAYERS
    params.split_mode = lib.LLAMA_SPLIT_MODE_NONE
    params.load_mode = lib.LLAMA_LOAD_MODE_MMAP if mmap else lib.LLAMA_LOAD_MODE_NONE
    return params, devices
