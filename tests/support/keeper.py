"""Run `rbee-keeper` as a user does: a process with its own home, its output in two texts."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.support.commands import Result, Running
from tests.support.waiting import slowness

PROGRAM = Path(sys.executable).with_name("rbee-keeper")


def rbee(*args: str, env: Mapping[str, str] | None = None, stdin: str | bytes = "", within: float = 60) -> Result:
    """Run a command to its end."""
    began = time.monotonic()
    done = subprocess.run(
        [PROGRAM, *args],
        input=stdin.encode() if isinstance(stdin, str) else stdin,
        capture_output=True,
        env={**os.environ, **(env or {})},
        timeout=within * slowness(),
        check=False,
    )
    return Result(
        [PROGRAM.name, *args], done.returncode, done.stdout.decode(), done.stderr.decode(), time.monotonic() - began
    )


@contextmanager
def running(*args: str, folder: Path, env: Mapping[str, str] | None = None) -> Iterator[Running]:
    """Run a command until the context ends; its output goes below *folder*."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "stdout").open("wb") as out, (folder / "stderr").open("wb") as err:
        process = subprocess.Popen(
            [PROGRAM, *args], stdin=subprocess.DEVNULL, stdout=out, stderr=err, env={**os.environ, **(env or {})}
        )
    try:
        yield Running([PROGRAM.name, *args], process, folder / "stdout", folder / "stderr")
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(10)
