"""Find or build llama-server, the peer of our worker, from the very llama.cpp that our worker runs.

Its source lies in llama-cpp-python's own source distribution. Built once, kept outside the checkout like the wheel.
"""

from __future__ import annotations

import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path

from rbee.config.file_lock import file_lock
from rbee.fleet import llama_build
from rbee.fleet.build_target import LLAMA, WITHOUT_AMX, BuildTarget, cache_home
from rbee.fleet.pins import Pin
from tools import constraints
from tools.longstep import run_quietly, run_with_progress, say

# Its web page and TLS are of no use here; everything else is as its own makers ship it.
FLAGS = (
    "-DCMAKE_BUILD_TYPE=Release",
    "-DBUILD_SHARED_LIBS=OFF",
    "-DLLAMA_CURL=OFF",
    "-DLLAMA_OPENSSL=OFF",
    *WITHOUT_AMX,
)
PARTS = ("-DLLAMA_BUILD_TESTS=OFF", "-DLLAMA_BUILD_EXAMPLES=OFF", "-DLLAMA_BUILD_UI=OFF", "-DGGML_CCACHE=OFF")


def llama_server() -> Path:
    """Return the llama-server of this kind of machine. Raises StepError or RbeeError if it cannot be built."""
    found = constraints.pinned()
    kind = BuildTarget.of_this_machine(found[LLAMA].version)
    peers = cache_home() / "peers"
    peers.mkdir(parents=True, exist_ok=True)
    program = peers / kind.folder / "llama-server"
    with file_lock(peers / f".{kind.folder}.lock"):
        if not program.exists():
            _build(program, found, peers / f"{kind.folder}.log")
    return program


def _build(program: Path, found: Mapping[str, Pin], log: Path) -> None:
    llama_build.check_compilers()
    log.unlink(missing_ok=True)
    say("  building llama-server, the peer: 7 to 10 minutes on 2 cores, done once.")
    say(f"    Log: {log}")
    with tempfile.TemporaryDirectory(dir=program.parent.parent, prefix=".building.") as name:
        aside = Path(name)
        python = llama_build.build_environment(aside, found)
        env = llama_build.build_variables(python)
        llama_build.fetch_source(python, found[LLAMA], aside)
        with tarfile.open(next(aside.glob("*.tar.gz"))) as archive:
            archive.extractall(aside, filter="data")
        (vendored,) = aside.glob("*/vendor/llama.cpp")
        run_quietly(["cmake", "-S", vendored, "-B", aside / "build", *FLAGS, *PARTS], env=env)
        run_with_progress(
            "building llama-server", ["cmake", "--build", aside / "build", "--target", "llama-server"], log=log, env=env
        )
        ready = aside / "ready"
        ready.mkdir()
        (aside / "build" / "bin" / "llama-server").rename(ready / "llama-server")
        ready.rename(program.parent)
