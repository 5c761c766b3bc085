"""One daemon of a kind for a home."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from rbee.config.paths import Paths
from rbee.contracts.errors import ErrorCode
from rbee.daemonkit.home_lock import HomeLock
from rbee.errors import RbeeError


def test_a_second_one_of_a_kind_is_refused(tmp_path: Path) -> None:
    """Who has the home is named; a daemon of another kind may use it too."""
    paths = Paths(tmp_path)
    queen, hive = HomeLock(paths, "queen-rbee"), HomeLock(paths, "rbee-hive")

    with pytest.raises(RbeeError, match=f"Another rbee-hive \\(process {os.getpid()}\\)") as raised:
        HomeLock(paths, "rbee-hive")

    assert raised.value.code is ErrorCode.ALREADY_RUNNING
    assert raised.value.details == {"pid": str(os.getpid()), "home": str(tmp_path)}
    queen.release()
    hive.release()


def test_one_that_is_ending_is_waited_for(tmp_path: Path) -> None:
    """With patience, a daemon gets the home that an earlier one gives up meanwhile."""
    paths = Paths(tmp_path)
    earlier = HomeLock(paths, "rbee-hive")
    ending = threading.Timer(0.2, earlier.release)
    ending.start()

    HomeLock(paths, "rbee-hive", timeout_s=10).release()

    ending.join()
