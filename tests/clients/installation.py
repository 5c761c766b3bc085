"""Install the client programs, once a machine, outside the checkout; what cannot be had is skipped with its reason."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest

from rbee.config.file_lock import file_lock
from rbee.fleet.build_target import cache_home

PROGRAMS: Final = Path(__file__).parent / "programs"
# What a slow registry may cost; both together stay below the limit of a test in this folder.
DEADLINE_S: Final = 120.0
_COMPLETE: Final = ".complete"


def node_modules() -> Path:
    """Return the folder of the npm packages; skip where they cannot be installed."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip("client programs (npm): node and npm are not installed")
    quick = ["--fetch-retry-mintimeout=500", "--fetch-retry-maxtimeout=2000"]
    command = [npm, "install", "--no-package-lock", "--no-audit", "--no-fund", *quick]
    return install("npm", PROGRAMS / "package.json", [command]) / "node_modules"


def python() -> Path:
    """Return the Python with the Python clients; skip where they cannot be installed."""
    uv = [sys.executable, "-m", "uv", "--quiet"]
    interpreter = Path("venv", "bin", "python")
    packages = [*uv, "pip", "install", "--python", str(interpreter), "--require-hashes", "-r", "requirements.txt"]
    commands = [[*uv, "venv", "--python", sys.executable, "venv"], packages]
    return install("python", PROGRAMS / "requirements.txt", commands) / interpreter


def install(kind: str, manifest: Path, commands: Sequence[Sequence[str]], *, deadline_s: float = DEADLINE_S) -> Path:
    """Return the folder in which *commands* installed what *manifest* pins; they find it there.

    Skips the test where they fail, or take longer than *deadline_s* together: the next run tries again.
    """
    machine = f"{platform.system()}\0{platform.machine()}\0{platform.python_version()}"
    digest = hashlib.sha256(f"{manifest.read_text(encoding='utf-8')}\0{machine}".encode()).hexdigest()[:12]
    home = cache_home() / "clients"
    folder = home / f"{kind}-{digest}"
    home.mkdir(parents=True, exist_ok=True)
    with file_lock(home / f"{kind}.lock"):
        if not (folder / _COMPLETE).exists():
            shutil.rmtree(folder, ignore_errors=True)  # half installed
            folder.mkdir()
            shutil.copy(manifest, folder)
            deadline = time.monotonic() + deadline_s
            for command in commands:
                _run(kind, command, folder, deadline)
            (folder / _COMPLETE).touch()
    return folder


def _run(kind: str, command: Sequence[str], folder: Path, deadline: float) -> None:
    process = subprocess.Popen(
        command,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        _, told = process.communicate(timeout=max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        # With the installer's own children, which would go on.
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        pytest.skip(f"client programs ({kind}): the installation took too long; run it again later")
    if process.returncode != 0:
        lines = [line for line in told.splitlines() if line.strip()]
        pytest.skip(f"client programs ({kind}): the installation failed: {' '.join(lines[:3])}")
