"""Read `constraints.txt`: what is installed, pinned by version and hash."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CONSTRAINTS = ROOT / "constraints.txt"


def pinned(file: Path = CONSTRAINTS) -> dict[str, str]:
    """Give for each distribution its lines, by normalised name."""
    blocks: dict[str, str] = {}
    name = ""
    for line in file.read_text(encoding="utf-8").splitlines():
        if line.startswith("#") or not line.strip():
            continue
        if found := re.match(r"([A-Za-z0-9._-]+)==", line):
            name = re.sub(r"[-_.]+", "-", found[1]).lower()
        blocks[name] = blocks.get(name, "") + line + "\n"
    return blocks


def version_of(block: str) -> str:
    """Give the version that a distribution's lines pin."""
    found = re.match(r"[A-Za-z0-9._-]+==([^\s;\\]+)", block)
    if found is None:
        raise ValueError(f"no version in: {block.splitlines()[0]}")
    return found[1]


def write(target: Path, blocks: dict[str, str], names: Iterable[str]) -> Path:
    """Write a requirements file with the lines of some distributions only."""
    target.write_text("".join(blocks[name] for name in names), encoding="utf-8")
    return target
