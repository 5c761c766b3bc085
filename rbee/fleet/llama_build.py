"""Decide where the llama.cpp wheel of a build target is built, and build it on this machine.

The package index has no ready wheel, and building one takes minutes; it is kept for all machines of the target.
The controller builds for its fleet, and the set-up of a checkout for itself, before anything is installed: this needs
the standard library only.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Final, Literal

from rbee.config.file_lock import file_lock
from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError
from rbee.fleet import pins
from rbee.fleet.build_target import LLAMA, NATIVE, BuildTarget, cmake_args, find_wheel, wheel_folder
from rbee.fleet.pins import Pin
from rbee.resource_limits import usable_processors

# Big, and of no use once the wheel is there.
ONLY_FOR_BUILDS: Final = ("cmake", "ninja", "scikit-build-core")
BUILDERS: Final = (*ONLY_FOR_BUILDS, "packaging", "pathspec")
_TAIL_LINES: Final = 15
_COMPILERS: Final = {"C": ("CC", "cc", "gcc", "clang"), "C++": ("CXX", "c++", "g++", "clang++")}


def build_location(target: BuildTarget, preference: str) -> Literal["controller", "host"]:
    """Choose where to build; *preference* is controller, host or auto.

    The compiler makes code for the processor it runs on, so only a controller of the same kind may build.

    Raises:
        RbeeError: the preference is controller, and the controller is another kind of machine.
    """
    same = target.folder == BuildTarget.of_this_machine(target.version).folder
    if preference == "controller" and not same:
        raise RbeeError(
            ErrorCode.BACKEND_UNAVAILABLE,
            f"The controller cannot build llama.cpp for {target.folder}: it is another kind of machine.",
            hint="Set rbee_build_on to auto or host; the first machine of the kind then builds for all.",
        )
    return "host" if preference == "host" or not same else "controller"


def run(command: list[str | Path], env: Mapping[str, str] | None = None) -> None:
    """Run a command of the build. Raises RbeeError with the end of its output if it fails."""
    done = subprocess.run(
        [str(part) for part in command],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        tail = "\n".join(done.stdout.splitlines()[-_TAIL_LINES:])
        raise RbeeError(
            ErrorCode.BACKEND_UNAVAILABLE,
            f"Building llama.cpp failed; the output ends with:\n{tail}",
            hint="Correct what the compiler names, then run this again.",
        )


def build(
    target: BuildTarget,
    found: Mapping[str, Pin],
    *,
    run_build: Callable[[list[str | Path], Mapping[str, str]], None] = run,
    waiting: Callable[[], None] | None = None,
) -> Path:
    """Build the wheel of this machine's own target and return its path; concurrent callers share one build.

    Args:
        target: that of this machine.
        found: the pinned packages by name; those of `BUILDERS` and llama-cpp-python itself are used.
        run_build: runs the one command that takes minutes, and raises if it fails; one that shows how far it is may
            add pip's `--verbose`.
        waiting: called once if another process builds the same wheel now.

    Raises:
        RbeeError: BACKEND_UNAVAILABLE, there is no compiler, or a command failed; PERMISSION_DENIED or DISK_FULL, the
            cache cannot be written. What *compiling* raises comes through.
    """
    folder = wheel_folder(target)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with file_lock(folder.with_name(f".{target.folder}.lock"), waiting):
        # Another process may have built it while this one waited.
        return find_wheel(target) or _build(target, found, folder, run_build)


def _build(
    target: BuildTarget,
    found: Mapping[str, Pin],
    folder: Path,
    run_build: Callable[[list[str | Path], Mapping[str, str]], None],
) -> Path:
    check_compilers()
    with tempfile.TemporaryDirectory(prefix=f".{target.folder}.", dir=folder.parent) as name:
        aside = Path(name)
        python = build_environment(aside, found)
        source = pins.write(aside / "source.txt", [found[LLAMA]])
        # pip keeps what it builds by source alone: without this, other flags would get the wheel of the first.
        command: list[str | Path] = [python, "-m", "pip", "wheel", "--no-cache-dir", "--no-deps"]
        command += ["--no-build-isolation", "--require-hashes", "--wheel-dir", aside / "out", "--requirement", source]
        run_build(command, build_variables(python) | {"CMAKE_ARGS": cmake_args(target.flags, NATIVE)})
        (aside / "out" / "kind.json").write_text(json.dumps(asdict(target), indent=1) + "\n", encoding="utf-8")
        (aside / "out").rename(folder)
    wheel = find_wheel(target)
    if wheel is None:
        raise RbeeError(ErrorCode.INTERNAL, f"The build left no wheel in {folder}.")
    return wheel


def check_compilers() -> None:
    """Raise RbeeError, saying what to install, if C or C++ cannot be compiled here."""
    for language, (variable, *names) in _COMPILERS.items():
        tried = [name for name in (os.environ.get(variable), *names) if name]
        if not any(shutil.which(name.split()[0]) for name in tried):
            package = "gcc" if language == "C" else "g++"
            raise RbeeError(
                ErrorCode.BACKEND_UNAVAILABLE,
                f"llama.cpp needs a {language} compiler, and none of these is on the path: {', '.join(tried)}.",
                hint=f"Install one and run this again: apt-get install {package} (Debian), "
                "dnf install gcc-c++ (Fedora), xcode-select --install (macOS).",
            )


def build_environment(aside: Path, found: Mapping[str, Pin]) -> Path:
    """Create an environment below *aside* with the build tools, each checked by its hash; return its python."""
    run([sys.executable, "-m", "venv", aside / "venv"])
    python = aside / "venv" / "bin" / "python"
    tools = pins.write(aside / "builders.txt", [found[name] for name in BUILDERS])
    pip: list[str | Path] = [python, "-m", "pip", "install", "-q", "--no-deps", "--require-hashes"]
    run([*pip, "--only-binary=:all:", "--requirement", tools])
    return python


def build_variables(python: Path) -> dict[str, str]:
    """Return the environment in which the build tools beside *python* are found and all cores are used."""
    return os.environ | {
        "PATH": f"{python.parent}{os.pathsep}{os.environ.get('PATH', '')}",
        "CMAKE_GENERATOR": "Ninja",
        "CMAKE_BUILD_PARALLEL_LEVEL": str(usable_processors()),
    }


def fetch_source(python: Path, llama: Pin, target: Path) -> None:
    """Download the pinned source of llama-cpp-python, as an archive, into *target*; *python* has the build tools."""
    with tempfile.TemporaryDirectory() as name:
        source = pins.write(Path(name) / "source.txt", [llama])
        # pip looks into a source before it keeps it, and needs the build tools for that.
        command: list[str | Path] = [python, "-m", "pip", "download", "-q", "--no-deps", "--no-build-isolation"]
        command += ["--require-hashes", "--no-binary=:all:", "--dest", target, "--requirement", source]
        run(command, build_variables(python))
