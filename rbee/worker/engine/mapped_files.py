"""Notice that the files of a model are written to while its weights are mapped from them.

What is mapped is the file as it is now: an answer would come from old and new weights mixed.
"""

from __future__ import annotations

import os
from pathlib import Path

from rbee.gguf.split import part_names


class MappedFiles:
    """The files of the model at *path*, kept open: a file that takes the place of one of them is no change.

    Open it before the model is loaded. Raises OSError.
    """

    def __init__(self, path: Path) -> None:
        self._files = [os.open(path.with_name(name), os.O_RDONLY | os.O_CLOEXEC) for name in part_names(path.name)]
        self._before = self._look()

    def changed(self) -> bool:
        """Return whether a file was written to, or touched, since; it costs a microsecond a file."""
        return self._look() != self._before

    def close(self) -> None:
        """Close the files."""
        for file in self._files:
            os.close(file)
        self._files = []

    def _look(self) -> list[tuple[int, int]]:
        # The kernel sets the time before it writes, so that whoever has read a changed byte sees the change.
        found = [os.fstat(file) for file in self._files]
        return [(info.st_mtime_ns, info.st_size) for info in found]
