"""The end of a log, and what follows."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from rbee.logfile import ROTATED_SUFFIX, LogReader, tail


def _append(path: Path, text: str) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(text)


def _copy_and_truncate(path: Path) -> None:
    shutil.copyfile(path, path.with_name(path.name + ROTATED_SUFFIX))
    os.truncate(path, 0)


def _move_and_begin_anew(path: Path) -> None:
    path.rename(path.with_name(path.name + ROTATED_SUFFIX))
    path.write_text("", encoding="utf-8")


def test_the_tail_is_the_last_lines_from_a_byte_on(tmp_path: Path) -> None:
    """A tail has the last lines, none from before its start, and none of a file that is absent."""
    log = tmp_path / "a.log"
    _append(log, "one\ntwo\nthree\n")
    assert tail(log, 2) == ["two", "three"]
    assert tail(log, 5, start=4) == ["two", "three"]
    assert tail(log, 0) == []
    assert tail(tmp_path / "absent.log", 5) == []


def test_a_reader_goes_on_behind_the_last_lines(tmp_path: Path) -> None:
    """What is written after the last lines were read comes once, a line as soon as it is whole."""
    log = tmp_path / "a.log"
    _append(log, "one\ntwo\nthr")
    reader = LogReader(log)
    assert reader.last(1) == ["two"]
    _append(log, "ee\nfo")
    assert reader.read_new() == ["three"]
    assert reader.read_new() == []
    _append(log, "ur\n")
    assert reader.read_new() == ["four"]


def test_a_reader_waits_for_a_file_that_is_absent(tmp_path: Path) -> None:
    """A file that appears later is read from its beginning."""
    log = tmp_path / "a.log"
    reader = LogReader(log)
    assert reader.last(5) == []
    assert reader.read_new() == []
    _append(log, "one\n")
    assert reader.read_new() == ["one"]


@pytest.mark.parametrize("rotate", [_copy_and_truncate, _move_and_begin_anew])
def test_a_rotation_loses_no_line(tmp_path: Path, rotate: object) -> None:
    """A reader follows its log through a rotation: the unread lines before it, then what comes after."""
    assert callable(rotate)
    log = tmp_path / "a.log"
    _append(log, "one\ntwo\n")
    reader = LogReader(log)
    assert reader.last(5) == ["one", "two"]
    _append(log, "three\n")
    rotate(log)
    _append(log, "four\n")
    assert reader.read_new() == ["three", "four"]
    _append(log, "five\n")
    assert reader.read_new() == ["five"]


def test_text_that_is_no_utf8_is_readable(tmp_path: Path) -> None:
    """A byte that is no UTF-8 does not end the reading."""
    log = tmp_path / "a.log"
    log.write_bytes(b"a\xffb\n")
    assert LogReader(log).last(1) == ["a�b"] == tail(log, 1)
