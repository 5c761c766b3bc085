"""Keep the file of a download until it is whole.

A file grows as `NAME.part` beside its target, with `NAME.part.json` naming the version that it is a part of; it is
renamed to the target only when it is whole, checked and on the disk. Bytes are written as they come and synced every
8 MiB: what a power cut leaves beyond the last sync is discarded, what a killed process leaves is kept.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from rbee.config.atomic_write import atomic_write
from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError

SYNC_BYTES: Final = 8 * 1024 * 1024
PART: Final = ".part"
NOTE: Final = ".part.json"


class PartialFile:
    """A file that is being downloaded to *target*. Blocking; call it from a thread."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self._part = target.with_name(target.name + PART)
        self._note = target.with_name(target.name + NOTE)
        self._unsynced = 0

    def size(self) -> int:
        """Return how many bytes are there, 0 if none."""
        try:
            return self._part.stat().st_size
        except FileNotFoundError:
            return 0

    def recover(self) -> int:
        """Truncate what an earlier boot of the machine may have left half-written; return how many bytes are there."""
        have, note = self.size(), self._read_note()
        synced = note.get("synced")
        if have and note.get("boot") != boot_id() and isinstance(synced, int) and synced < have:
            os.truncate(self._part, synced)
            return synced
        return have

    def version(self) -> str | None:
        """Return the version that the bytes belong to; None if that is not known."""
        version = self._read_note().get("version")
        return version if isinstance(version, str) else None

    def begin(self, version: str | None) -> None:
        """Start with an empty file, for bytes of *version*."""
        self.target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._part.write_bytes(b"")
        self._write_note(version, 0)

    def _read_note(self) -> dict[str, Any]:
        try:
            note = json.loads(self._note.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return note if isinstance(note, dict) else {}

    def _write_note(self, version: str | None, synced: int) -> None:
        """Replace the note at once, so that half of one is never read."""
        note = json.dumps({"version": version, "synced": synced, "boot": boot_id()})
        atomic_write(self._note, note, durable=False)

    def append(self, data: bytes) -> None:
        """Add bytes at the end."""
        with self._part.open("ab", buffering=0) as file:
            view = memoryview(data)
            while view:
                view = view[file.write(view) :]
            self._unsynced += len(data)
            if self._unsynced >= SYNC_BYTES:
                os.fsync(file.fileno())
                self._unsynced = 0
                self._write_note(self.version(), self.size())

    def cut(self, size: int) -> int:
        """Cut what is there back to *size* bytes, which are then what is on the disk; return that."""
        os.truncate(self._part, size)
        self._write_note(self.version(), size)
        return size

    def sha256(self) -> str:
        """Return the SHA-256 of what is there."""
        return sha256_of(self._part)

    def finish(self) -> None:
        """Return the file its name, so that it survives a power cut whole or not at all."""
        with self._part.open("rb") as file:
            os.fsync(file.fileno())
        self._part.replace(self.target)
        self._note.unlink(missing_ok=True)
        folder = os.open(self.target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def discard(self) -> None:
        """Remove what is there."""
        self._part.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)

    def discard_unless_resumable(self) -> None:
        """Remove what is there if nothing says which version it belongs to: no later download could continue it."""
        if self.version() is None:
            self.discard()


def check_place(target: Path, folder: Path) -> None:
    """Raise RbeeError STATE_CORRUPT where *target*, a file below *folder*, cannot be: something else lies there."""
    files = [target.with_name(target.name + end) for end in ("", PART, NOTE)]
    wrong = [f"{path} is not a file" for path in files if path.exists() and not path.is_file()]
    folders = [path for path in target.parents if path.is_relative_to(folder)]
    wrong += [f"{path} is not a folder" for path in folders if path.exists() and not path.is_dir()]
    if wrong:
        raise RbeeError(
            ErrorCode.STATE_CORRUPT,
            f"{target.name} cannot be downloaded to its place: {wrong[-1]}.",
            details={"path": wrong[-1].rpartition(" is not a ")[0]},
            hint="Move it away, then try again.",
        )


def boot_id() -> str:
    """Return the id of this boot of the machine; empty where the system has none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def moved_to(folder: Path, path: Path) -> Path:
    """Return where *path*, below another folder of the name of *folder*, is if that was moved to *folder*."""
    parents = [parent for parent in path.parents if parent.name == folder.name]
    return folder / path.relative_to(parents[0]) if parents else path


def has_content(paths: Sequence[Path], size: int, digests: Sequence[str]) -> bool:
    """Return whether the files at *paths* are there, with *size* bytes in all and these SHA-256. Blocking."""
    if len(paths) != len(digests) or not all(path.is_file() for path in paths):
        return False
    if sum(path.stat().st_size for path in paths) != size:
        return False
    return all(sha256_of(path) == digest for path, digest in zip(paths, digests, strict=True))


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal. Blocking."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
