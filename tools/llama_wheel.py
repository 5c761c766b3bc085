"""Find or build the llama-cpp-python wheel for this kind of machine, once for all checkouts.

The package index has no ready wheel, and building one takes minutes. It is built from the pinned source,
kept in `<cache>/wheels/<kind>/`, and found there by every later setup on the same kind of machine.
The roles that install rbee on other machines find it there too: `rbee.fleet.kinds` says what a kind is.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from rbee.fleet.kinds import FLAGS, Kind, cache_home, locate
from rbee.fleet.kinds import LLAMA as NAME
from tools import constraints
from tools.longstep import StepError, long, quick, say
from tools.packages import Installer

__all__ = [
    "FLAGS",
    "NAME",
    "Kind",
    "alone",
    "build_environment",
    "build_variables",
    "check_compilers",
    "ensure",
    "locate",
]
ONLY_FOR_BUILDS = ("cmake", "ninja", "scikit-build-core")
BUILDERS = (*ONLY_FOR_BUILDS, "packaging", "pathspec")


def ensure(installer: Installer, blocks: dict[str, str]) -> Path:
    """Give the wheel of this machine's kind; build it if it is the first time.

    Raises StepError if the build fails or the machine lacks what it takes.
    """
    kind = Kind.of_this_machine(constraints.version_of(blocks[NAME]))
    wheels = cache_home() / "wheels"
    wheels.mkdir(parents=True, exist_ok=True)
    if (found := locate(kind)) is not None:
        say(f"  llama.cpp: using the wheel built before, {found}")
        return found
    with alone(wheels / f".{kind.folder}.lock"):
        # Somebody else may have built it while we waited for the lock.
        if (found := locate(kind)) is None:
            found = _build(kind, installer, blocks, wheels)
    return found


def build_environment(folder: Path, installer: Installer, blocks: dict[str, str]) -> Path:
    """Make an environment with the pinned cmake and ninja below *folder*; give its python. Raises StepError."""
    check_compilers()
    quick([sys.executable, "-m", "venv", folder / "venv"])
    python = folder / "venv" / "bin" / "python"
    installer.install(python, constraints.write(folder / "builders.txt", blocks, BUILDERS))
    return python


def build_variables(python: Path) -> dict[str, str]:
    """Give the environment in which the build tools beside *python* are found and all cores are used."""
    return os.environ | {
        "PATH": f"{python.parent}{os.pathsep}{os.environ.get('PATH', '')}",
        "CMAKE_GENERATOR": "Ninja",
        "CMAKE_BUILD_PARALLEL_LEVEL": str(os.cpu_count() or 1),
    }


def _build(kind: Kind, installer: Installer, blocks: dict[str, str], wheels: Path) -> Path:
    check_compilers()
    log = wheels / f"{kind.folder}.log"
    log.unlink(missing_ok=True)
    say(f"  llama.cpp: building {NAME} {kind.version} for this kind of machine ({kind.machine}, {kind.backend}).")
    say("    This is the one long step: 4 to 7 minutes on 2 cores. It is done once; later checkouts find the wheel.")
    say(f"    Log: {log}")
    with tempfile.TemporaryDirectory(prefix=f".{kind.folder}.", dir=wheels) as name:
        aside = Path(name)
        python = build_environment(aside, installer, blocks)
        source = constraints.write(aside / "source.txt", blocks, [NAME])
        command: list[str | Path] = [python, "-m", "pip", "wheel", "-v", "--no-deps", "--no-build-isolation"]
        command += ["--require-hashes", "--wheel-dir", aside / "out", "-r", source]
        env = build_variables(python) | {"CMAKE_ARGS": " ".join(FLAGS)}
        long("building llama.cpp", command, log=log, env=env)
        (aside / "out" / "kind.json").write_text(json.dumps(asdict(kind), indent=1) + "\n", encoding="utf-8")
        (aside / "out").rename(wheels / kind.folder)
    built = locate(kind)
    if built is None:
        raise StepError(f"the build left no wheel in {wheels / kind.folder}; its log is {log}")
    say(f"    Kept as {built}")
    return built


def check_compilers() -> None:
    """Raise StepError, saying what to install, if C or C++ cannot be compiled here."""
    compilers = {
        "C": (os.environ.get("CC"), "cc", "gcc", "clang"),
        "C++": (os.environ.get("CXX"), "c++", "g++", "clang++"),
    }
    for language, names in compilers.items():
        if not any(name and shutil.which(name.split()[0]) for name in names):
            tried = ", ".join(name for name in names if name)
            package = "gcc" if language == "C" else "g++"
            raise StepError(
                f"llama.cpp needs a {language} compiler, and none of these is on the path: {tried}.\n"
                f"Install one and run this again: apt-get install {package} (Debian), dnf install gcc-c++ (Fedora), "
                "xcode-select --install (macOS)."
            )


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Hold a file lock, so that two setups at once build once."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("  llama.cpp: another setup is building the wheel; waiting for it.")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
