"""A command that a test has started: while it runs, and what it did when it has ended."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.waiting import slowness


@dataclass
class Result:
    """What a finished command did; `seconds` is its wall time."""

    argv: list[str]
    code: int
    stdout: str
    stderr: str
    seconds: float

    @property
    def json(self) -> Any:
        """Read standard output as JSON."""
        return json.loads(self.stdout)

    @property
    def json_lines(self) -> list[Any]:
        """Read standard output as JSON lines."""
        return [json.loads(line) for line in self.stdout.splitlines()]

    def __str__(self) -> str:
        return f"{' '.join(self.argv)} -> {self.code}\n--- stdout\n{self.stdout}\n--- stderr\n{self.stderr}"


@dataclass
class Running:
    """A command that still runs; its output goes to files."""

    argv: list[str]
    process: subprocess.Popen[bytes]
    stdout: Path
    stderr: Path
    began: float = field(default_factory=time.monotonic)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the command itself."""
        self.process.send_signal(number)

    def wait(self, within: float) -> Result:
        """Wait for its end; fails after *within* seconds."""
        try:
            code = self.process.wait(within * slowness())
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"not ended within {within} s: {self._result(-9)}") from None
        return self._result(code)

    def _result(self, code: int) -> Result:
        return Result(self.argv, code, self.stdout.read_text(), self.stderr.read_text(), time.monotonic() - self.began)
