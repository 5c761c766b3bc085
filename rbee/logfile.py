"""Read the end of a log file, and follow it as it grows, through rotations."""

from __future__ import annotations

from pathlib import Path
from typing import Final

ROTATED_SUFFIX: Final = ".1"
"""What a rotation appends to the name of the file that keeps the earlier lines."""

_CHUNK_BYTES: Final = 256 * 1024
_LINE_BYTES: Final = 400  # lines of our logs are shorter, on average


def tail(path: Path, lines: int, *, start: int = 0) -> list[str]:
    """Return the last *lines* lines of a log from byte *start* on; none where the file cannot be read."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(start, size - max(lines * _LINE_BYTES, _CHUNK_BYTES)))
            text = file.read(size - file.tell())
    except OSError:
        return []
    return text.decode("utf-8", "replace").splitlines()[-lines:] if lines else []


class LogReader:
    """Read one log file line by line, as it grows.

    A rotation copies the file to its name + ROTATED_SUFFIX and truncates it, or moves it there and begins a new one;
    lines that were written before it and not read yet are read from there. A file that is absent has no lines.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._position = 0
        self._inode: int | None = None
        self._partial = b""

    def last(self, lines: int) -> list[str]:
        """Return the last *lines* whole lines; `read_new` goes on behind them."""
        try:
            with self._path.open("rb") as file:
                self._inode = self._path.stat().st_ino
                size = file.seek(0, 2)
                file.seek(max(0, size - max(lines * _LINE_BYTES, _CHUNK_BYTES)))
                text = file.read(size - file.tell())
        except FileNotFoundError:
            return []
        self._position, self._partial = size, b""
        complete = self._split(text)
        return complete[-lines:] if lines else []

    def read_new(self) -> list[str]:
        """Return the whole lines that were written since the last call, at most 256 KiB at once."""
        try:
            status = self._path.stat()
        except FileNotFoundError:
            return []
        unread = b""
        if status.st_size < self._position or (self._inode is not None and status.st_ino != self._inode):
            unread = self._read(self._path.with_name(self._path.name + ROTATED_SUFFIX), self._position)
            if unread and not unread.endswith(b"\n"):
                unread += b"\n"
            self._position = 0
        self._inode = status.st_ino
        text = self._read(self._path, self._position)
        self._position += len(text)
        return self._split(unread + text)

    @staticmethod
    def _read(path: Path, position: int) -> bytes:
        try:
            with path.open("rb") as file:
                file.seek(position)
                return file.read(_CHUNK_BYTES)
        except FileNotFoundError:
            return b""

    def _split(self, text: bytes) -> list[str]:
        *complete, self._partial = (self._partial + text).split(b"\n")
        return [line.decode("utf-8", "replace") for line in complete]
