"""Read the headers of models: what nobody has checked yet in a child process with limits, the rest in this one.

A header can be built to cost its reader memory and time. The reader itself is bounded, so this process may read what
was checked before (a row of the catalog whose file is unchanged) or is trusted as the program is (an installed
package): a cold start does not wait for another interpreter.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any, Final

import rbee
from rbee.errors import RbeeError
from rbee.gguf.header import GgufHeader, Part, invalid_header, present_parts, read_header, unreadable
from rbee.gguf.reader import OTHER_FILE
from rbee.hive.child_process import run_child

LIMIT_S: Final = 30.0
AT_ONCE: Final = 2
REMEMBERED: Final = 16
# Without site-packages, which reading needs nothing of and which take longer to find than a header to read.
_PROGRAM: Final = "import sys; sys.path.append(sys.argv.pop(1)); from rbee.hive.models.header_child import main; main()"
_ROOT: Final = str(Path(rbee.__file__).parents[1])


class HeaderReader:
    """Reads headers, and remembers those that were checked as long as the files are as they were.

    Args:
        limit_s: how long a child may take.
    """

    def __init__(self, limit_s: float = LIMIT_S) -> None:
        self._limit_s = limit_s
        self._checked: dict[tuple[Part, ...], GgufHeader] = {}
        self._slots = asyncio.Semaphore(AT_ONCE)

    async def read(self, path: Path) -> GgufHeader:
        """Read the header of a model that was checked before, or that is trusted. Raises RbeeError as `check` does."""
        parts = await asyncio.to_thread(present_parts, path)
        known = self._checked.get(parts)
        return await asyncio.to_thread(read_header, path) if known is None else known

    async def check(self, path: Path) -> GgufHeader:
        """Read the header of a model that may be hostile.

        Raises RbeeError: MODEL_NOT_FOUND, PERMISSION_DENIED, or MODEL_INVALID that names the field, or the limit.
        """
        parts = await asyncio.to_thread(present_parts, path)
        known = self._checked.get(parts)
        if known is not None:
            return known
        async with self._slots:
            answer = await self._ask_child(path, parts)
        if "facts" not in answer:
            if "unreadable" in answer:
                raise unreadable(path, str(answer["unreadable"]))
            raise invalid_header(path, str(answer.get("invalid")), str(answer.get("hint", OTHER_FILE)))
        self._checked[parts] = GgufHeader.of(answer["facts"])
        while len(self._checked) > REMEMBERED:
            del self._checked[next(iter(self._checked))]
        return self._checked[parts]

    async def _ask_child(self, path: Path, parts: tuple[Part, ...]) -> dict[str, Any]:
        command = (sys.executable, "-I", "-S", "-c", _PROGRAM, _ROOT, *(str(part.path) for part in parts))
        # Nothing of this process's environment, which holds its secrets, but what its interpreter may need.
        env = {name: value for name, value in os.environ.items() if name == "LD_LIBRARY_PATH"}
        try:
            child = await run_child(command, env=env, limit_s=self._limit_s)
        except TimeoutError:
            raise _exceeded(path, f"was not done within {self._limit_s:g} s") from None
        if child.code:
            raise _exceeded(path, f"ended with {child.ending}")
        return dict(json.loads(child.stdout))


def _exceeded(path: Path, what: str) -> RbeeError:
    return invalid_header(path, f"the process that read its header {what}")
