"""Locate the checkout and its `constraints.txt`, and read the versions and hashes that it pins."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rbee.fleet.pins import Pin

ROOT = Path(__file__).resolve().parent.parent
CONSTRAINTS = ROOT / "constraints.txt"


def pinned(file: Path = CONSTRAINTS) -> dict[str, Pin]:
    """Return the pins of the file, by normalised name."""
    # Imported here: an unchanged setup reads no pins, and a Python too old to import this must still get a message.
    from rbee.fleet import pins

    return pins.read(file.read_text(encoding="utf-8"), str(file))
