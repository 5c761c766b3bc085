"""Access to llama.cpp: its functions, its log, its devices, its threads."""

from __future__ import annotations

import ctypes
import logging
import re
from collections import deque
from typing import Any, Final

from rbee.contracts.devices import Backend
from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError
from rbee.worker.engine import llama_library

log = logging.getLogger("llama.cpp")

# enum ggml_log_level; its "info" is a hundred lines a start.
_LEVELS: Final = {1: logging.DEBUG, 2: logging.DEBUG, 3: logging.WARNING, 4: logging.ERROR}
_ERROR: Final = 4
_CONTINUES: Final = 5
_THREADPOOL_PARAMS_BYTES: Final = 4096  # several times what the struct takes; only ggml looks inside
_GPU_TYPES: Final = (1, 2)  # enum ggml_backend_dev_type: GPU, IGPU
_OFFLOADED: Final = re.compile(r"offloaded (\d+)/(\d+) layers")
_REGISTRY_NAMES: Final = {Backend.CUDA: ("CUDA",), Backend.METAL: ("Metal", "MTL")}


class Llama:
    """llama.cpp, initialised. `lib` has its functions; `errors` its last error lines.

    `offloaded` is how many of how many layers it reports to have put on a GPU, where its log was enabled.
    """

    def __init__(self) -> None:
        self.lib = llama_library.functions()
        self.errors: deque[str] = deque(maxlen=8)
        self.offloaded: tuple[int, int] | None = None
        self._level = logging.DEBUG
        self._line = ""
        self._listener = self.lib.llama_log_callback(self._on_log)
        self._silent = llama_library.silent_log_callback(self.lib)
        self.set_log(enabled=True)
        self.lib.llama_backend_init()

    def set_log(self, *, enabled: bool) -> None:
        """Forward llama.cpp's log to ours, or discard it.

        It has a hundred lines a load; each would wait until the main thread, busy with imports, releases the
        interpreter.
        """
        self.lib.llama_log_set(self._listener if enabled else self._silent, None)

    def supports_gpu(self) -> bool:
        """Return whether there is a GPU that this build of llama.cpp can compute on.

        llama.cpp's own answer is yes for every build that reaches other machines.
        """
        return bool(self._gpus())

    def device(self, backend: Backend, index: int) -> int:
        """Return a GPU's handle. Raises RbeeError CUDA_DEVICE_FAILED, BACKEND_UNAVAILABLE or INVALID_DEVICE."""
        found = [handle for handle in self._gpus() if self._registry_of(handle).startswith(_REGISTRY_NAMES[backend])]
        if not found:
            raise _unavailable(backend, built_for_gpus=self._is_built_for_gpus())
        if index >= len(found):
            raise RbeeError(
                ErrorCode.INVALID_DEVICE,
                f"There is no {backend} device {index}: this machine has {len(found)}, numbered from 0.",
                details={"backend": backend.value, "devices": len(found)},
            )
        return found[index]

    def device_free_bytes(self, handle: int) -> int:
        """Return the free memory of a device."""
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        call = self._foreign("ggml_backend_dev_memory", None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)
        call(handle, ctypes.addressof(free), ctypes.addressof(total))
        return free.value

    def make_threadpool(self, context: int, threads: int) -> int:
        """Attach persistent threads to *context*: by default llama.cpp starts new ones each step, at a fifth's cost."""
        params = ctypes.create_string_buffer(_THREADPOOL_PARAMS_BYTES)
        address = ctypes.addressof(params)
        self._foreign("ggml_threadpool_params_init", None, ctypes.c_void_p, ctypes.c_int)(address, threads)
        pool = self._foreign("ggml_threadpool_new", ctypes.c_void_p, ctypes.c_void_p)(address)
        attach = self._foreign("llama_attach_threadpool", None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)
        attach(context, pool, None)
        return int(pool)

    def free_threadpool(self, pool: int) -> None:
        """End the threads."""
        self._foreign("ggml_threadpool_free", None, ctypes.c_void_p)(pool)

    def _gpus(self) -> list[int]:
        count = self._foreign("ggml_backend_dev_count", ctypes.c_size_t)
        get = self._foreign("ggml_backend_dev_get", ctypes.c_void_p, ctypes.c_size_t)
        kind = self._foreign("ggml_backend_dev_type", ctypes.c_int, ctypes.c_void_p)
        handles = [get(index) for index in range(count())]
        return [handle for handle in handles if kind(handle) in _GPU_TYPES]

    def _is_built_for_gpus(self) -> bool:
        count = self._foreign("ggml_backend_reg_count", ctypes.c_size_t)
        get = self._foreign("ggml_backend_reg_get", ctypes.c_void_p, ctypes.c_size_t)
        name = self._foreign("ggml_backend_reg_name", ctypes.c_char_p, ctypes.c_void_p)
        known = tuple(text for names in _REGISTRY_NAMES.values() for text in names)
        return any(bytes(name(get(index))).decode().startswith(known) for index in range(count()))

    def _registry_of(self, handle: int) -> str:
        registry = self._foreign("ggml_backend_dev_backend_reg", ctypes.c_void_p, ctypes.c_void_p)
        name = self._foreign("ggml_backend_reg_name", ctypes.c_char_p, ctypes.c_void_p)
        return bytes(name(registry(handle))).decode()

    def _foreign(self, name: str, result: Any, *arguments: Any) -> Any:
        """Return a function of ggml, which llama_cpp does not declare; libllama's handle finds it too."""
        return ctypes.CFUNCTYPE(result, *arguments)((name, self.lib._lib))  # noqa: SLF001

    def _on_log(self, level: int, text: bytes, _data: object) -> None:
        """Log a part of llama.cpp's output; a line may come in several."""
        if level != _CONTINUES:
            self._level = level
        self._line += text.decode("utf-8", "replace")
        if not self._line.endswith("\n"):
            return
        line, self._line = self._line.strip(), ""
        if line and self._level == _ERROR:
            self.errors.append(line)
        if counted := _OFFLOADED.search(line):
            self.offloaded = int(counted[1]), int(counted[2])
        if line:
            log.log(_LEVELS.get(self._level, logging.DEBUG), line)


def _unavailable(backend: Backend, *, built_for_gpus: bool) -> RbeeError:
    """Build the error for a backend on which llama.cpp has no device, whatever the driver reports."""
    why = "finds no such device" if built_for_gpus else "was built without GPU support"
    cuda = backend is Backend.CUDA
    return RbeeError(
        ErrorCode.CUDA_DEVICE_FAILED if cuda else ErrorCode.BACKEND_UNAVAILABLE,
        f"The model cannot be loaded on {backend}: the llama.cpp of this worker {why}.",
        details={"backend": backend.value, "available": ["cpu"], "built_for_gpus": built_for_gpus},
        hint=(
            f"Install a llama.cpp that is built for {backend} (rbee-keeper hive install does); "
            "to run the model on the CPU, use --backend cpu."
        ),
    )
