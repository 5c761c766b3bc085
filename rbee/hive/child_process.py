"""Have a child process do what may hang, crash or take too much, within a time limit."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from rbee.lifeline import Lifeline

KILLED_S: Final = 1.0


class ChildOutput(NamedTuple):
    """The exit code of a child, negative for a signal, and what it printed."""

    code: int
    stdout: bytes
    stderr: bytes

    @property
    def ending(self) -> str:
        """Return how it ended: by which signal, or with which exit code."""
        return f"signal {-self.code}" if self.code < 0 else f"exit code {self.code}"


async def run_child(command: Sequence[str], *, env: Mapping[str, str], limit_s: float) -> ChildOutput:
    """Run *command* to its end; it does not outlive this process, however that ends.

    Raises TimeoutError after *limit_s* seconds, and kills it then; OSError where it cannot be started.
    """
    line = Lifeline()
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**env, **line.env()},
            pass_fds=(line.child_fd,),
            start_new_session=True,
        )
    except BaseException:
        line.close()
        raise
    line.spawned()
    try:
        out, err = await asyncio.wait_for(process.communicate(), limit_s)
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            with contextlib.suppress(TimeoutError):  # one that hangs in a driver or a dead disk is not waited for
                await asyncio.wait_for(process.communicate(), KILLED_S)
        line.close()
    return ChildOutput(process.returncode or 0, out, err)
