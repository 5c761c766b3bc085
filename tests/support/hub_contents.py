"""What the stand-in hub has: repositories with files, each with the faults that its downloads are to have."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from tests.support.faults import Fault, Status


@dataclass(slots=True)
class File:
    content: bytes
    sha256: str
    lfs: bool
    faults: list[Fault] = field(default_factory=list)
    always: Fault | None = None

    def next_fault(self, *, body: bool) -> Fault | None:
        """Take the next fault; a Status strikes where the file is looked up, all others where its bytes are sent."""
        if self.faults:
            return self.faults.pop(0) if isinstance(self.faults[0], Status) is not body else None
        return self.always if self.always is not None and isinstance(self.always, Status) is not body else None


@dataclass(slots=True)
class Repo:
    commit: str
    token: str | None
    gated: bool
    tags: set[str] = field(default_factory=set)
    files: dict[str, File] = field(default_factory=dict)


def oid(file: File) -> str:
    header = f"blob {len(file.content)}\0".encode()
    return hashlib.sha1(header + file.content, usedforsecurity=False).hexdigest()
