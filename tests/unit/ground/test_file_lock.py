"""Turns that processes take by a lock in a file."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from rbee.config.file_lock import file_lock
from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError


def test_one_at_a_time_holds_the_lock(tmp_path: Path) -> None:
    """Who finds the turn taken is told once that it waits, and goes on when the other is done."""
    lock = tmp_path / "lock"
    waits, story = threading.Event(), []

    def second() -> None:
        with file_lock(lock, waits.set):
            story.append("second")

    thread = threading.Thread(target=second)
    with file_lock(lock, waiting=lambda: story.append("waited for nobody")):
        thread.start()
        assert waits.wait(5)
        story.append("first")
    thread.join(5)

    assert story == ["first", "second"]


def test_a_lock_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """A lock in a folder that is not there is an expected failure with its path."""
    with pytest.raises(RbeeError, match="missing/lock") as raised, file_lock(tmp_path / "missing" / "lock"):
        pass

    assert raised.value.code is ErrorCode.PERMISSION_DENIED
