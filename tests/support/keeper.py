"""Run `rbee-keeper` as a user does: a process with its own home, its output in two texts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.waiting import slowness

PROGRAM = Path(sys.executable).with_name("rbee-keeper")


@dataclass(frozen=True, slots=True)
class Ran:
    """What a run gave."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one JSON document on stdout."""
        return json.loads(self.out)

    @property
    def lines(self) -> list[dict[str, Any]]:
        """The JSON documents on stdout, one a line."""
        return [json.loads(line) for line in self.out.splitlines()]


def rbee(*args: str, env: Mapping[str, str] | None = None, stdin: str | bytes = "", within: float = 60) -> Ran:
    """Run a command to its end."""
    done = subprocess.run(
        [PROGRAM, *args],
        input=stdin.encode() if isinstance(stdin, str) else stdin,
        capture_output=True,
        env={**os.environ, **(env or {})},
        timeout=within * slowness(),
        check=False,
    )
    return Ran(done.returncode, done.stdout.decode(), done.stderr.decode())


class Running:
    """A command that runs, with its output in files that can be read at any time."""

    def __init__(self, process: subprocess.Popen[bytes], folder: Path) -> None:
        self.process = process
        self._folder = folder

    @property
    def out(self) -> str:
        """What it has printed on stdout so far."""
        return (self._folder / "stdout").read_text()

    @property
    def err(self) -> str:
        """What it has printed on stderr so far."""
        return (self._folder / "stderr").read_text()

    def interrupt(self) -> None:
        """Press Ctrl-C."""
        self.process.send_signal(signal.SIGINT)

    def wait(self, within: float) -> int:
        """Wait for its end and give its exit code."""
        return self.process.wait(within * slowness())


@contextmanager
def running(*args: str, folder: Path, env: Mapping[str, str] | None = None) -> Iterator[Running]:
    """Run a command until the context ends; its output goes below *folder*."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "stdout").open("wb") as out, (folder / "stderr").open("wb") as err:
        process = subprocess.Popen(
            [PROGRAM, *args], stdin=subprocess.DEVNULL, stdout=out, stderr=err, env={**os.environ, **(env or {})}
        )
    try:
        yield Running(process, folder)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(10)
