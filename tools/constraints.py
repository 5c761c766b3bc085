"""Return where the checkout and its `constraints.txt` lie, and read what the latter pins by version and hash."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rbee.fleet.pins import Pin

ROOT = Path(__file__).resolve().parent.parent
CONSTRAINTS = ROOT / "constraints.txt"


def pinned(file: Path = CONSTRAINTS) -> dict[str, Pin]:
    """Return what the file pins, by normalised name."""
    # Only now: an unchanged setup reads no pins, and a Python too old to import this must still be told so.
    from rbee.fleet import pins

    return pins.read(file.read_text(encoding="utf-8"), str(file))
