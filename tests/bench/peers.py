"""Find or build llama-server, the peer of our worker, from the very llama.cpp that our worker runs.

Its source lies in llama-cpp-python's own source distribution. Built once, kept outside the checkout like the wheel.
"""

from __future__ import annotations

import sys
import tarfile
import tempfile
from pathlib import Path

from rbee.fleet.kinds import cache_home
from tools import constraints, llama_wheel
from tools.longstep import long, quick, say
from tools.packages import Installer

# Its web page and TLS are of no use here; everything else is as its own makers ship it.
FLAGS = ("-DCMAKE_BUILD_TYPE=Release", "-DBUILD_SHARED_LIBS=OFF", "-DLLAMA_CURL=OFF", "-DLLAMA_OPENSSL=OFF")
PARTS = ("-DLLAMA_BUILD_TESTS=OFF", "-DLLAMA_BUILD_EXAMPLES=OFF", "-DLLAMA_BUILD_UI=OFF", "-DGGML_CCACHE=OFF")


def llama_server() -> Path:
    """Give the llama-server of this kind of machine. Raises StepError if it has to be built and cannot be."""
    blocks = constraints.pinned()
    kind = llama_wheel.Kind.of_this_machine(constraints.version_of(blocks[llama_wheel.NAME]))
    peers = cache_home() / "peers"
    peers.mkdir(parents=True, exist_ok=True)
    program = peers / kind.folder / "llama-server"
    with llama_wheel.alone(peers / f".{kind.folder}.lock"):
        if not program.exists():
            _build(program, blocks, peers / f"{kind.folder}.log")
    return program


def _build(program: Path, blocks: dict[str, str], log: Path) -> None:
    log.unlink(missing_ok=True)
    say("  building llama-server, the peer: 7 to 10 minutes on 2 cores, done once.")
    say(f"    Log: {log}")
    with tempfile.TemporaryDirectory(dir=program.parent.parent, prefix=".building.") as name:
        aside = Path(name)
        python = llama_wheel.build_environment(aside, Installer(Path(sys.executable), blocks), blocks)
        env = llama_wheel.build_variables(python)
        source = constraints.write(aside / "source.txt", blocks, [llama_wheel.NAME])
        command: list[str | Path] = [python, "-m", "pip", "download", "-q", "--no-deps", "--no-build-isolation"]
        quick([*command, "--require-hashes", "--no-binary=:all:", "-d", aside, "-r", source], env=env)
        with tarfile.open(next(aside.glob("*.tar.gz"))) as archive:
            archive.extractall(aside, filter="data")
        (vendored,) = aside.glob("*/vendor/llama.cpp")
        quick(["cmake", "-S", vendored, "-B", aside / "build", *FLAGS, *PARTS], env=env)
        long(
            "building llama-server", ["cmake", "--build", aside / "build", "--target", "llama-server"], log=log, env=env
        )
        ready = aside / "ready"
        ready.mkdir()
        (aside / "build" / "bin" / "llama-server").rename(ready / "llama-server")
        ready.rename(program.parent)
