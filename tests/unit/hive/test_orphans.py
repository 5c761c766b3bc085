"""What an earlier life or a worker that is gone leaves on the disk."""

from __future__ import annotations

import os
from pathlib import Path

from rbee.hive.workers.orphans import KEPT_LOGS, prune_logs


def test_logs_of_workers_long_gone_are_removed_and_no_others(tmp_path: Path) -> None:
    """The newest logs stay, and so does that of a worker that lives, however old it is."""
    for age in range(KEPT_LOGS + 10):
        path = tmp_path / f"worker-{age}.log"
        path.touch()
        os.utime(path, (1_000_000 - age, 1_000_000 - age))
    (tmp_path / "rbee-hive.log").touch()
    oldest = KEPT_LOGS + 9

    prune_logs(tmp_path, [f"worker-{oldest}"])

    left = {path.name for path in tmp_path.iterdir()}
    assert left == {f"worker-{age}.log" for age in (*range(KEPT_LOGS), oldest)} | {"rbee-hive.log"}
