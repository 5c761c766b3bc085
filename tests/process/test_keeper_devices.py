"""The keeper's commands about devices, against a queen that a test plays: what they ask, print and exit with."""

from __future__ import annotations

import pytest

from tests.support.keeper import rbee
from tests.support.stand_in_queen import StandInQueen

pytestmark = pytest.mark.process


@pytest.mark.B90
def test_hive_yield(queen: StandInQueen) -> None:
    """Each device is a line with its end and what was freed; what was cut off, and who holds memory, is said too."""
    worker = {"worker_id": "w1", "gone": True, "memory_returned_bytes": 94_000_000, "requests_stopped": 2}
    gpu = {
        "backend": "cuda",
        "index": 1,
        "name": "RTX",
        "total_bytes": 24_000_000_000,
        "free_bytes": 17_000_000_000,
        "foreign_bytes": 6_100_000_000,
        "held_by": [{"pid": 4242, "name": "blender", "bytes": 6_100_000_000}],
    }
    yielded = {"device": gpu, "until_unix": 1_767_232_800.0, "workers": [worker]}
    queen.answer("POST", "/v2/hives/yield", {"node": "h1", "devices": [yielded]})
    queen.answer(
        "POST", "/v2/hives/yield", {"node": "h1", "devices": [{**yielded, "workers": [{**worker, "gone": 0}]}]}
    )

    first = rbee("hive", "yield", "--node", "h1", "--device", "1", "--for", "2h", "--drain", "90s")
    second = rbee("hive", "yield", "--node", "h1", "--backend", "cuda", "--json")

    assert first.code == 0
    assert first.stdout == (
        "cuda device 1 (RTX) is yielded to another program until 2026-01-01 02:00 UTC: 1 worker stopped, "
        "94.0 MB of memory freed, 17.0 GB free, foreign 6.1 GB (blender, process 4242: 6.1 GB)\n"
    )
    assert "w1: 2 requests had not ended in time and were stopped" in first.stderr
    assert "rbee-keeper hive resume --node h1" in first.stderr
    assert (second.code, second.json["devices"][0]["device"]["index"]) == (1, 1)
    asked = [request.body for request in queen.requests("POST", "/v2/hives/yield")]
    assert asked == [{"node": "h1", "device": 1, "for_s": 7200, "drain_s": 90}, {"node": "h1", "backend": "cuda"}]


@pytest.mark.B90
def test_hive_resume(queen: StandInQueen) -> None:
    """Each device that was yielded is a line; where none was, that is said."""
    device = {"backend": "cuda", "device": 1, "since_unix": 1.0, "until_unix": None}
    queen.answer("POST", "/v2/hives/resume", {"node": "h1", "devices": [device]})
    queen.answer("POST", "/v2/hives/resume", {"node": "h1", "devices": []})

    first, second = rbee("hive", "resume", "--node", "h1"), rbee("hive", "resume", "--node", "h1", "--device", "0")

    assert (first.code, first.stdout) == (0, "cuda device 1 is used again\n")
    assert (second.code, second.stdout) == (0, "No such device of h1 was yielded\n")
    assert queen.requests("POST", "/v2/hives/resume")[1].body == {"node": "h1", "device": 0}


def test_a_time_that_is_none_is_refused(queen: StandInQueen) -> None:
    """A time without a unit is wrong usage, with examples."""
    ran = rbee("hive", "yield", "--node", "h1", "--for", "2")

    assert ran.code == 2
    assert "90s, 5m, 2h or 1d" in ran.stderr
    assert not queen.requests("POST", "/v2/hives/yield")
