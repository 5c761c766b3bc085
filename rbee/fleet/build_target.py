"""Identify the build target of a machine: machines of one target share a llama.cpp wheel, which is built once.

A target is everything that the wheel's machine code depends on: version, system, architecture, C library,
instruction sets, backend with its toolkit, build flags, and our own sources in it. Needs the standard library only.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

LLAMA: Final = "llama-cpp-python"
# gcc before 11.5, 12.4, 13.3 and 14 (its bug 114098) drops most of what ggml writes into the configuration of AMX's
# tiles, and the first token then ends the process with an illegal instruction.
WITHOUT_AMX: Final = ("-DCMAKE_C_FLAGS=-U__AMX_INT8__", "-DCMAKE_CXX_FLAGS=-U__AMX_INT8__")
# Without OpenMP the wheel needs no libgomp on the machines it is copied to, at the same speed.
FLAGS: Final = ("-DGGML_OPENMP=OFF", "-DLLAVA_BUILD=ON", "-DGGML_RPC=ON", *WITHOUT_AMX)
NATIVE: Final = Path(__file__).resolve().parent.parent / "native"
"""The folder of our own sources, which are built into the wheel."""

_PROJECT: Final = "project.cmake"
_BACKEND_FLAGS: Final = {"cuda": ("-DGGML_CUDA=ON",), "metal": (), "cpu": ()}
_INSTRUCTION_SETS = re.compile(
    r"amx|avx|bmi|f16c|fma|sse|ssse|vnni"  # x86
    r"|asimd|bf16|dotprod|fphp|i8mm|neon|sme\d*$|sve\d*$"  # ARM
    r"|vx"  # s390x
)


@dataclass(frozen=True, slots=True)
class BuildTarget:
    """The kind of machine that a llama.cpp wheel is built for."""

    version: str
    system: str
    machine: str
    libc: str
    instructions: str
    backend: str
    flags: tuple[str, ...]
    native: str

    @classmethod
    def of_this_machine(cls, version: str) -> BuildTarget:
        """Return the target of this machine; *version* is that of llama-cpp-python."""
        return cls(
            version=version,
            system=sys.platform,
            machine=platform.machine(),
            libc="-".join(platform.libc_ver()),
            instructions=" ".join(instruction_sets(cpu_flags())),
            backend="metal" if sys.platform == "darwin" else "cpu",
            flags=FLAGS,
            native=native_digest(),
        )

    @classmethod
    def of_facts(cls, version: str, facts: Mapping[str, Any], variant: str, toolkit: str) -> BuildTarget:
        """Return the target of a machine from the facts of the Ansible module `rbee_machine`."""
        return cls(
            version=version,
            system=facts["system"],
            machine=facts["machine"],
            libc="-".join(facts["libc"]),
            instructions=" ".join(instruction_sets(facts["cpu"]["flags"])),
            backend=f"{variant}-{toolkit}" if toolkit else variant,
            flags=FLAGS + _BACKEND_FLAGS[variant],
            native=native_digest(),
        )

    @property
    def folder(self) -> str:
        """A name that a person can read and that differs whenever the machine code may."""
        digest = hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:12]
        return f"{self.version}-{self.system}-{self.machine}-{self.backend}-{digest}"


def cmake_args(flags: Iterable[str], native: Path) -> str:
    """Return CMAKE_ARGS for a build with *flags* and our own sources in the folder *native*."""
    return shlex.join([*flags, f"-DCMAKE_PROJECT_llama_cpp_INCLUDE={native / _PROJECT}"])


def native_digest() -> str:
    """Return a digest of our own sources."""
    digest = hashlib.sha256()
    for file in sorted(NATIVE.iterdir()):
        digest.update(f"{file.name}\0{file.stat().st_size}\0".encode() + file.read_bytes())
    return digest.hexdigest()[:12]


def cache_home() -> Path:
    """Return the folder of what outlives a checkout: `$XDG_CACHE_HOME/rbee`, by default `~/.cache/rbee`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rbee"


def wheel_folder(target: BuildTarget) -> Path:
    """Return the folder of this target's wheel."""
    return cache_home() / "wheels" / target.folder


def find_wheel(target: BuildTarget) -> Path | None:
    """Return the wheel of this target; None if it has not been built yet."""
    return next(iter(sorted(wheel_folder(target).glob("*.whl"))), None)


def instruction_sets(flags: Iterable[str]) -> list[str]:
    """Select the flags that matter to the compiler's -march=native."""
    flags = list(flags)
    # On a Mac the only "flag" is the chip's name, which determines the rest.
    if len(flags) == 1 and " " in flags[0]:
        return flags
    return sorted(flag for flag in flags if _INSTRUCTION_SETS.match(flag))


def cpu_flags() -> list[str]:
    """Return this machine's processor flags as the system reports them."""
    if sys.platform == "darwin":
        ask = ["sysctl", "-n", "machdep.cpu.brand_string"]
        return [subprocess.run(ask, capture_output=True, text=True, check=True).stdout.strip()]
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return value.split()
    return []
