"""Start a hive process before its arguments are known: it imports what it needs, and waits for them.

A queen that serves one command starts its hive first of all, so that both import at the same time; the hive's address
follows once the queen has read its settings. Nothing here takes long to import.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from typing import IO

from rbee.lifeline import ORDERED, Lifeline

PROGRAM = "rbee-hive"
_HIDDEN = ("RBEE_API_KEY", "RBEE_QUEEN_")


class PrestartedHive:
    """A child of the calling process, on a lifeline; create it on the main thread.

    Args:
        program: `rbee-hive`, with its path.
        environ: the environment that it inherits; the queen's own key and settings are left out.
        output: its output until it has its arguments; None means the calling process's own.

    Raises OSError where it cannot be started.
    """

    def __init__(self, program: str, environ: Mapping[str, str], output: IO[bytes] | None = None) -> None:
        self.line = Lifeline()
        kept = {name: value for name, value in environ.items() if not name.startswith(_HIDDEN)}
        try:
            self.process = subprocess.Popen(
                [program, ORDERED],
                env={**kept, **self.line.env()},
                pass_fds=(self.line.child_fd,),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        except BaseException:
            self.line.close()
            raise
        self.line.spawned()

    def abort(self) -> None:
        """Kill it."""
        self.line.close()
        self.process.kill()
        self.process.wait()


def prestart(environ: Mapping[str, str]) -> PrestartedHive | None:
    """Start a hive if the program is beside the interpreter; a launch finds out later what is wrong otherwise."""
    program = os.path.join(os.path.dirname(sys.executable), PROGRAM)  # noqa: PTH118, PTH120 -- pathlib takes 5 ms
    try:
        return PrestartedHive(program, environ)
    except OSError:
        return None
