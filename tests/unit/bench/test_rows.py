"""A benchmark's report says honestly whether a promise was kept."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.rows import Row, table, write


@pytest.mark.parametrize(
    ("ours", "target", "kept"),
    [(2.0, ">=1.0", True), (1.9, ">=1.0", False), (2.4, "<=1.2", True), (2.5, "<=1.2", False)],
)
def test_a_target_is_about_the_ratio(ours: float, target: str, kept: bool) -> None:
    """A target holds for ours divided by the peer's, and its border is inside."""
    assert Row("speed", ours, 2.0, "peer", "s", target).kept is kept


def test_the_file_has_the_seven_fields_of_each_row(tmp_path: Path) -> None:
    """The JSON file lists name, ours, peer, peer_name, unit, ratio and target of each row."""
    write([Row("speed", 3.0, 2.0, "llama-server", "tokens/s", ">=1.0")], tmp_path / "out" / "latest.json")

    (row,) = json.loads((tmp_path / "out" / "latest.json").read_text())
    assert row == {
        "name": "speed",
        "ours": 3.0,
        "peer": 2.0,
        "peer_name": "llama-server",
        "unit": "tokens/s",
        "ratio": 1.5,
        "target": ">=1.0",
    }


def test_the_table_shouts_about_a_missed_target() -> None:
    """A missed target is marked in its row, a kept one too."""
    text = table([Row("good", 3.0, 2.0, "p", "s", ">=1.0"), Row("bad", 1.0, 2.0, "p", "s", ">=1.0")])

    good, bad = text.splitlines()[1:]
    assert good.endswith("kept")
    assert bad.endswith("MISSED")
