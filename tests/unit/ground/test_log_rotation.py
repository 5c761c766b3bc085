"""Log files that grow are set aside, once, while somebody still writes them."""

from __future__ import annotations

from pathlib import Path

from rbee.daemonkit.log_rotation import rotate


def test_a_large_file_is_set_aside_and_begun_anew(tmp_path: Path) -> None:
    """What was written is kept once, and the writer, who holds the file open, goes on at its beginning."""
    path = tmp_path / "rbee-hive.log"
    with path.open("ab", buffering=0) as writer:
        writer.write(b"old line\n" * 20)

        assert rotate(tmp_path, "*.log", 100) == [path]

        writer.write(b"new line\n")
    assert path.read_bytes() == b"new line\n"
    assert (tmp_path / "rbee-hive.log.1").read_bytes() == b"old line\n" * 20
    assert {file.name for file in tmp_path.iterdir()} == {"rbee-hive.log", "rbee-hive.log.1"}


def test_a_small_file_and_what_is_set_aside_are_left_alone(tmp_path: Path) -> None:
    """Only what is too large is touched, and never what was set aside before."""
    (tmp_path / "queen-rbee.log").write_bytes(b"x" * 100)
    (tmp_path / "queen-rbee.log.1").write_bytes(b"x" * 500)

    assert rotate(tmp_path, "*.log", 100) == []
    assert (tmp_path / "queen-rbee.log.1").stat().st_size == 500
