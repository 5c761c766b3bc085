"""What a benchmark reports: ours beside the peer's, their ratio, and whether the promise is kept."""

from __future__ import annotations

import json
import operator
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

_COMPARE: dict[str, Callable[[float, float], bool]] = {">=": operator.ge, "<=": operator.le}


@dataclass(frozen=True, slots=True)
class Row:
    """One measure. The target is a promise about ours / peer, written ">=1.0" or "<=1.2"; "" promises nothing."""

    name: str
    ours: float
    peer: float
    peer_name: str
    unit: str
    target: str

    @property
    def ratio(self) -> float:
        """Ours divided by the peer's."""
        return self.ours / self.peer

    @property
    def kept(self) -> bool:
        """Return whether the ratio is what was promised."""
        if not self.target:
            return True
        return _COMPARE[self.target[:2]](self.ratio, float(self.target[2:]))


def table(rows: Sequence[Row]) -> str:
    """Format rows as a table."""
    lines = [("measure", "ours", "peer", "", "unit", "ratio", "target", "")]
    lines += [
        (
            row.name,
            f"{row.ours:.3g}",
            f"{row.peer:.3g}",
            row.peer_name,
            row.unit,
            f"{row.ratio:.2f}",
            row.target,
            ("kept" if row.kept else "MISSED") if row.target else "",
        )
        for row in rows
    ]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def write(rows: Sequence[Row], path: Path) -> None:
    """Write rows as JSON, whole or not at all."""
    path.parent.mkdir(exist_ok=True)
    values = [asdict(row) | {"ratio": round(row.ratio, 4)} for row in rows]
    aside = path.with_suffix(".new")
    aside.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    aside.replace(path)
