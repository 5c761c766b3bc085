"""Confine a worker, before it opens its model, to what its work needs: it reads files that strangers made.

A file or a request that takes a worker over then finds no key of the hive, no catalog, no model but its own, no other
process, and nobody to talk to but the hive's callback and those who connect.
"""

from __future__ import annotations

import contextlib
import logging
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from rbee import landlock
from rbee.contracts.devices import Backend
from rbee.gguf.header import parts_of
from rbee.landlock import Rules
from rbee.worker.settings import WorkerSettings

log = logging.getLogger(__name__)

# Libraries, their settings, and what the machine says of itself. Nothing below holds a secret of ours; of /proc, what
# other processes have in memory is closed by Landlock itself.
_SYSTEM: Final = (
    *("/usr", "/lib", "/lib64", "/bin", "/sbin", "/nix/store", "/opt/cuda", "/run/opengl-driver"),
    *("/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/ld.so.preload", "/etc/localtime"),
    *("/etc/hosts", "/etc/host.conf", "/etc/gai.conf", "/etc/nsswitch.conf", "/etc/resolv.conf"),
    *("/etc/passwd", "/etc/group", "/etc/services", "/etc/protocols"),
    *("/proc", "/sys"),
)
_DEVICES: Final = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
# Of cards, of boards with one memory for both, and of Linux below Windows.
_GPU_DEVICES: Final = ("nvidia*", "nvhost*", "nvmap", "nvgpu", "dri", "dxg")
# CUDA names the threads that it starts, through files of this folder, and does not start where it may not.
_OWN_THREADS: Final = "/proc/self/task"
_DRIVER_FILE, _UNIFIED_MEMORY_FILE = "nvidiactl", "nvidia-uvm"
_DEVICE_FILES_LIMIT_S: Final = 10.0
_GPU_SYSTEM: Final = ("/etc/nvidia", "/run/nvidia-persistenced", "/run/nvidia-fabricmanager", "/run/nvidia-topologyd")


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What of this process and machine decides which paths it needs.

    `python` are the folders of the interpreter and of its modules, `libraries` those that the linker was given, `gpu`
    the device files of GPUs, `cache` is where the GPU's driver keeps what it compiled.
    """

    python: tuple[str, ...]
    libraries: tuple[str, ...] = ()
    gpu: tuple[str, ...] = ()
    cache: str = ""


def confine(settings: WorkerSettings) -> None:
    """Take from this process what a worker does not need; say so where the kernel cannot.

    Call it while the process has one thread.
    """
    # A core dump would write keys and prompts to the disk.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if not settings.confine:
        log.warning("this worker is not confined: a setting says so")
        return
    version = landlock.abi_version()
    if not version:
        log.info("this worker is not confined: the kernel has no Landlock")
        return
    on_gpu = settings.backend is not Backend.CPU
    if on_gpu:
        make_device_files()
    try:
        if on_gpu:
            # A rule holds for an inode. Nobody may close this one: /proc would make another in its place.
            os.open(_OWN_THREADS, os.O_PATH | os.O_CLOEXEC)
        landlock.restrict(rules_for(settings, _surroundings(os.environ, on_gpu=on_gpu)), version)
    except OSError as error:
        log.warning("this worker is not confined", extra={"fields": {"reason": str(error)}})


def rules_for(settings: WorkerSettings, around: Surroundings) -> Rules:
    """Return what a worker with these settings may do."""
    on_gpu = settings.backend is not Backend.CPU
    template = settings.chat_template_file
    callback = urlsplit(settings.callback_url or "")
    return Rules(
        read=(
            *_SYSTEM,
            *(_GPU_SYSTEM if on_gpu else ()),
            *around.python,
            *around.libraries,
            *map(str, parts_of(settings.model_path)),
            *([] if template is None else [str(template)]),
        ),
        use=(*_DEVICES, *((*around.gpu, _OWN_THREADS) if on_gpu else ())),
        keep=(around.cache, "/dev/shm") if on_gpu else (),  # noqa: S108 - CUDA shares memory there
        bind=(settings.port,),
        connect=(callback.port or 80,) if callback.hostname else (),
    )


def make_device_files(devices: Path = Path("/dev"), program: str = "nvidia-modprobe") -> None:
    """Have the file made through which CUDA reaches the memory of NVIDIA's devices, where there is none.

    Whichever process first uses CUDA has it made, by this program, which root lends its rights to; a confined process
    is lent none.
    """
    if not (devices / _DRIVER_FILE).exists() or (devices / _UNIFIED_MEMORY_FILE).exists():
        return
    found = shutil.which(program)
    if found is None:
        return
    with contextlib.suppress(OSError, subprocess.SubprocessError):  # CUDA then says what it misses
        subprocess.run(
            [found, "-u", "-c=0"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=_DEVICE_FILES_LIMIT_S,
            check=False,
        )


def _surroundings(environ: Mapping[str, str], *, on_gpu: bool) -> Surroundings:
    prefixes = {sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix}
    libraries = environ.get("LD_LIBRARY_PATH", "").split(":")
    gpu = [path for name in _GPU_DEVICES for path in Path("/dev").glob(name)] if on_gpu else []
    cache = environ.get("CUDA_CACHE_PATH") or str(Path.home() / ".nv" / "ComputeCache")
    if on_gpu:
        with contextlib.suppress(OSError):  # the driver would make it, and may not any more
            Path(cache).mkdir(mode=0o700, parents=True, exist_ok=True)
    return Surroundings(
        python=tuple(sorted(prefixes | {entry for entry in sys.path if entry})),
        libraries=tuple(entry for entry in libraries if entry),
        gpu=tuple(map(str, gpu)),
        cache=cache,
    )
