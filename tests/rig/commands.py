"""Run the programs that the rig is made of, and say which one failed and why."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from tests.support.commands import Result


class RigError(Exception):
    """Raised when the rig does not do what it should; the message is for the person who waits."""


class RigUnavailable(RigError):  # noqa: N818 - it is a fact about the machine, and reads as one in `pytest.raises`
    """Raised where there can be no rig: not root, not Linux, or a program that cannot be installed."""


def attempt(
    *argv: str | Path, stdin: str | bytes = b"", env: Mapping[str, str] | None = None, within: float = 60
) -> Result:
    """Run a command to its end, whatever comes out; RigError if that takes longer than *within* seconds."""
    words = [str(part) for part in argv]
    began = time.monotonic()
    try:
        done = subprocess.run(
            words,
            input=stdin.encode() if isinstance(stdin, str) else stdin,
            capture_output=True,
            env={**os.environ, **env} if env else None,
            timeout=within,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise RigError(f"{' '.join(words)} did not end within {within:.0f} s") from None
    except FileNotFoundError:
        raise RigError(f"{words[0]} is not installed") from None
    out, err = (text.decode(errors="replace") for text in (done.stdout, done.stderr))
    return Result(words, done.returncode, out, err, time.monotonic() - began)


def call(*argv: str | Path, stdin: str | bytes = b"", env: Mapping[str, str] | None = None, within: float = 60) -> str:
    """Run a command that must succeed and give its standard output. Raises RigError with its words if it fails."""
    result = attempt(*argv, stdin=stdin, env=env, within=within)
    if result.code:
        raise RigError(f"{' '.join(result.argv)} failed with {result.code}: {(result.stderr or result.stdout).strip()}")
    return result.stdout
