"""A hive process before anybody knows what it is to do: it imports what it needs, and then waits to be told.

A queen that serves one command begins hers as the first thing of all, so that both import at the same time; she learns
from her settings only later where the hive shall live. Here is nothing that takes long to import.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import IO

from rbee.lifeline import ORDERED, Lifeline

PROGRAM = "rbee-hive"
_HIDDEN = ("RBEE_API_KEY", "RBEE_QUEEN_")


class HiveBegun:
    """A child of the calling process, on a lifeline; begin it from the main thread.

    Args:
        program: `rbee-hive`, with its path.
        environ: what it inherits; the queen's own key and settings are left out.
        output: where its words go until it has orders; without one to the calling process's own.

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

    def order(self, argv: Sequence[str], env: Mapping[str, str], log: str) -> None:
        """Let it go on as a hive with these arguments and this environment in addition, its output in the file *log*.

        Secrets come this way too: nobody else can read it.
        """
        self.line.order({"argv": list(argv), "env": dict(env), "log": log})

    def call_off(self) -> None:
        """End it, who has done nothing yet."""
        self.line.close()
        self.process.kill()
        self.process.wait()


def begun_early(environ: Mapping[str, str]) -> HiveBegun | None:
    """Begin a hive if the program is where it usually is; what is wrong otherwise is found out when it is launched."""
    program = os.path.join(os.path.dirname(sys.executable), PROGRAM)  # noqa: PTH118, PTH120 -- pathlib takes 5 ms
    try:
        return HiveBegun(program, environ)
    except OSError:
        return None
