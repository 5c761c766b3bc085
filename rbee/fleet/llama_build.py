"""Decide where the llama.cpp wheel of a kind is built, and build it on the controller.

The package index has no ready wheel, and building one takes minutes; it is kept for all machines of the kind.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Final, Literal

from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError
from rbee.fleet.kinds import LLAMA, Kind, cache_home, locate
from rbee.fleet.pins import Pin

BUILDERS: Final = ("cmake", "ninja", "scikit-build-core", "packaging", "pathspec")
_TAIL_LINES: Final = 15


def place(kind: Kind, wish: str) -> Literal["controller", "host"]:
    """Choose where to build: *wish* is controller, host or auto.

    The compiler makes code for the processor it runs on, so only a controller of the same kind may build.

    Raises:
        RbeeError: the wish is controller, and the controller is another kind of machine.
    """
    same = kind.folder == Kind.of_this_machine(kind.version).folder
    if wish == "controller" and not same:
        raise RbeeError(
            ErrorCode.BACKEND_UNAVAILABLE,
            f"The controller cannot build llama.cpp for {kind.folder}: it is another kind of machine.",
            hint="Set rbee_build_on to auto or host; the first machine of the kind then builds for all.",
        )
    return "host" if wish == "host" or not same else "controller"


def build(kind: Kind, found: Mapping[str, Pin]) -> Path:
    """Build the wheel of this machine's own kind, once for however many machines ask at the same time.

    Raises RbeeError with the end of the compiler's output.
    """
    wheels = cache_home() / "wheels"
    wheels.mkdir(parents=True, exist_ok=True)
    # The set-up of a checkout takes the same lock.
    with (wheels / f".{kind.folder}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return locate(kind) or _build(kind, found, wheels)


def _build(kind: Kind, found: Mapping[str, Pin], wheels: Path) -> Path:
    if shutil.which("c++") is None and shutil.which("g++") is None and shutil.which("clang++") is None:
        raise RbeeError(
            ErrorCode.BACKEND_UNAVAILABLE,
            "llama.cpp must be built once, and the controller has no C++ compiler.",
            hint="apt-get install g++ (Debian), dnf install gcc-c++ (Fedora), xcode-select --install (macOS).",
        )
    with tempfile.TemporaryDirectory(prefix=f".{kind.folder}.", dir=wheels) as name:
        aside = Path(name)
        python = _builders(aside, found)
        source = _write(aside / "source.txt", [found[LLAMA]])
        command: list[str | Path] = [python, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
        command += ["--require-hashes", "--wheel-dir", aside / "out", "--requirement", source]
        env = os.environ | {
            "PATH": f"{python.parent}{os.pathsep}{os.environ.get('PATH', '')}",
            "CMAKE_ARGS": " ".join(kind.flags),
            "CMAKE_GENERATOR": "Ninja",
            "CMAKE_BUILD_PARALLEL_LEVEL": str(os.cpu_count() or 1),
        }
        _run(command, env)
        (aside / "out" / "kind.json").write_text(json.dumps(asdict(kind), indent=1) + "\n", encoding="utf-8")
        (aside / "out").rename(wheels / kind.folder)
    wheel = locate(kind)
    if wheel is None:
        raise RbeeError(ErrorCode.INTERNAL, f"The build left no wheel in {wheels / kind.folder}.")
    return wheel


def fetch_source(found: Mapping[str, Pin], target: Path) -> None:
    """Put the pinned source of llama-cpp-python into *target*, for a machine that builds itself."""
    with tempfile.TemporaryDirectory() as name:
        # pip looks into a source before it keeps it, and needs the build tools for that.
        python = _builders(Path(name), found)
        source = _write(Path(name) / "source.txt", [found[LLAMA]])
        command: list[str | Path] = [python, "-m", "pip", "download", "--no-deps", "--no-build-isolation"]
        command += ["--require-hashes", "--no-binary", ":all:", "--dest", target, "--requirement", source]
        _run(command, os.environ | {"PATH": f"{python.parent}{os.pathsep}{os.environ.get('PATH', '')}"})


def _builders(aside: Path, found: Mapping[str, Pin]) -> Path:
    """Make an environment with the build tools, each checked by its hash, and give its python."""
    _run([sys.executable, "-m", "venv", aside / "venv"])
    python = aside / "venv" / "bin" / "python"
    tools = _write(aside / "builders.txt", [found[name] for name in BUILDERS])
    _run([python, "-m", "pip", "install", "-q", "--no-deps", "--require-hashes", "--requirement", tools])
    return python


def _write(file: Path, wanted: list[Pin]) -> Path:
    file.write_text("".join(pin.lines for pin in wanted), encoding="utf-8")
    return file


def _run(command: list[str | Path], env: Mapping[str, str] | None = None) -> None:
    run = subprocess.run(
        [str(part) for part in command],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if run.returncode:
        tail = "\n".join(run.stdout.splitlines()[-_TAIL_LINES:])
        raise RbeeError(
            ErrorCode.BACKEND_UNAVAILABLE,
            f"Building llama.cpp failed; the output ends with:\n{tail}",
            hint="Correct what the compiler names, then run this again.",
        )
