"""`top`: what it draws of the rows that the queen's events tell."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from rbee.client.event import Event
from rbee.keeper.queen.fleet_rows import FleetRows, devices, shares, tokens_per_s
from rbee.keeper.ui.fleet_frame import frame

NOW = 1_000_000.0
GB = 1_000_000_000


def node(name: str, **more: Any) -> dict[str, Any]:
    card = {"backend": "cuda", "index": 0, "name": "RTX", "total_bytes": 24 * GB, "free_bytes": 8 * GB}
    return {"node": name, "connected": True, "devices": [card], **more}


def worker(id_: str, node: str, size: int, **more: Any) -> dict[str, Any]:
    row = {"worker_id": id_, "node": node, "model_ref": "hf:org/repo/long-name.gguf", "backend": "cuda", "device": 0}
    return {**row, "state": "idle", "memory_bytes": size, "slots_total": 4, "slots_available": 4, **more}


def task(id_: str, state: str, arrived: float, **more: Any) -> dict[str, Any]:
    row = {"id": id_, "state": state, "client": "anna", "model": "chat", "priority": 0, "tokens": 0}
    return {**row, "arrived_unix": arrived, **more}


def rows(**kinds: dict[str, Any]) -> FleetRows:
    found = FleetRows()
    changes = [{"kind": kind, "id": id_, "row": row} for kind, of in kinds.items() for id_, row in of.items()]
    found.apply(Event("snapshot", {"changes": changes}))
    found.apply(Event("complete", {}))
    return found


def drawn(of: FleetRows, *, width: int = 80, height: int = 40) -> list[str]:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(frame(of, width=width, height=height, now_unix=NOW))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    return [line.rstrip() for line in text.splitlines()]


def test_a_device_shows_what_takes_its_memory() -> None:
    """Workers, other programs and what is free, each with its share of the bar, and the workers by name."""
    fleet = rows(
        node={"h1": node("h1")},
        worker={"w1": worker("w1", "h1", 6 * GB, served="chat"), "w2": worker("w2", "h1", 4 * GB)},
    )
    (use,) = devices(fleet)
    assert use.workers == (("chat", 6 * GB), ("long-name.gguf", 4 * GB))
    assert (use.foreign, use.free) == (6 * GB, 8 * GB)
    line = next(line for line in drawn(fleet, width=110) if line.startswith("h1"))
    assert line.count("█") == 10
    assert line.count("▓") == 7
    assert line.count("▒") == 10
    assert "16.0 GB of 24.0 GB  chat 6.0 GB  long-name.gguf 4.0 GB" in line


def test_a_worker_that_loads_shows_how_far_it_is() -> None:
    """Layers instead of slots, until it serves."""
    fleet = rows(
        node={"h1": node("h1")},
        worker={"w1": worker("w1", "h1", 6 * GB, state="loading")},
        load={"w1": {"worker_id": "w1", "stage": "loading_to_vram", "layers_loaded": 12, "layers_total": 48}},
    )
    assert any("loading" in line and "12 of 48 layers" in line for line in drawn(fleet))


def test_a_machine_that_is_away_says_why() -> None:
    """It has no devices, and its last error; a backend with a fault has that."""
    fleet = rows(
        node={
            "h1": node("h1", connected=False, last_error="no route to host"),
            "h2": node("h2", devices=[], faults={"cuda": "the driver is too old"}),
        }
    )
    lines = drawn(fleet)
    assert lines[0].startswith("rbee   1 of 2 machines  0 workers  0 running  0 waiting")
    assert any("h1" in line and "not connected" in line and "no route to host" in line for line in lines)
    assert any("cuda" in line and "cannot be used" in line and "the driver is too old" in line for line in lines)


def test_requests_that_wait_come_before_those_that_ended() -> None:
    """Each with its place or its pace; where the screen ends, the ended ones are left out, the oldest first."""
    fleet = rows(
        node={"h1": node("h1")},
        task={
            "t1": task("t1", "done", NOW - 50, node="h1", took_s=2.0, first_token_s=1.0, tokens=11, error=None),
            "t2": task("t2", "failed", NOW - 40, error="WORKER_CRASHED"),
            "t3": task("t3", "running", NOW - 3, node="h1", waited_s=0.5, first_token_s=1.0, tokens=21),
            "t4": task("t4", "waiting", NOW - 1, position=1, queue_length=2),
            "t5": task("t5", "done", NOW - 30, prompt_tokens=100, cached_tokens=90),
        },
    )
    lines = drawn(fleet, width=100)
    begin = next(index for index, line in enumerate(lines) if line.startswith("state"))
    assert [line.split()[0] for line in lines[begin + 1 :]] == ["running", "1.", "done", "WORKER_CRASHED", "done"]
    assert "10.0" in lines[begin + 1]
    assert "1. of 2" in lines[begin + 2]
    assert "90 of 100" in lines[begin + 3]
    few = drawn(fleet, width=100, height=10)
    assert [line.split()[0] for line in few[begin + 1 :]] == ["running", "1.", "done"]


@pytest.mark.parametrize("width", [60, 80, 200])
def test_no_line_is_longer_than_the_terminal(width: int) -> None:
    """Forty machines with long names and many workers fit any width: what does not is cut."""
    names = [f"a-machine-with-quite-a-long-name-{number}" for number in range(40)]
    fleet = rows(
        node={name: node(name) for name in names},
        worker={f"{name}-{of}": worker(f"{name}-{of}", name, GB) for name in names for of in range(3)},
        task={str(number): task(str(number), "running", NOW - number, node=names[number]) for number in range(40)},
    )
    lines = drawn(fleet, width=width)
    assert max(map(len, lines)) <= width
    assert lines[-1] == "and 37 more"


def test_an_empty_fleet_says_what_to_do() -> None:
    """No machine, no request: the next step is there."""
    lines = drawn(rows())
    assert "No machine is registered. To add one: rbee-keeper config set-ssh --help" in lines
    assert lines[-1] == "none yet"


def test_after_a_reconnection_only_what_is_there_is_shown() -> None:
    """The snapshot takes the place of what was known, which stays until it begins."""
    fleet = rows(node={"h1": node("h1"), "h2": node("h2")})
    fleet.reconnect()
    assert (len(fleet.of("node")), fleet.complete) == (2, False)
    fleet.apply(Event("snapshot", {"changes": [{"kind": "node", "id": "h2", "row": node("h2")}]}))
    fleet.apply(Event("snapshot", {"changes": [{"kind": "node", "id": "h3", "row": node("h3")}]}))
    assert [row["node"] for row in fleet.of("node")] == ["h2", "h3"]
    fleet.apply(Event("changes", {"changes": [{"kind": "node", "id": "h2", "row": None}]}))
    assert [row["node"] for row in fleet.of("node")] == ["h3"]


@pytest.mark.parametrize(
    ("parts", "total", "cells", "expected"),
    [
        ([50, 25], 100, 20, [10, 5]),
        ([1, 0], 1000, 20, [1, 0]),
        ([1000, 1], 1000, 10, [9, 1]),
        ([5, 5], 0, 10, [0, 0]),
        ([700, 700], 1000, 10, [5, 5]),
        ([], 10, 10, []),
    ],
)
def test_shares_fit_together(parts: list[int], total: int, cells: int, expected: list[int]) -> None:
    """Whatever the figures say, a bar is never longer than its cells, and what is there is seen."""
    assert shares(parts, total, cells) == expected


def test_the_pace_counts_from_the_first_token() -> None:
    """Waiting for the model is not writing slowly."""
    assert tokens_per_s(task("t", "running", NOW - 3, first_token_s=1.0, tokens=21), NOW) == pytest.approx(10.0)
    assert tokens_per_s(task("t", "done", NOW - 60, first_token_s=1.0, took_s=3.0, tokens=21), NOW) == 10.0
    assert tokens_per_s(task("t", "waiting", NOW - 60), NOW) is None


@pytest.mark.parametrize("said", ["[/tmp/x] is no model", "[red]all is well[/red]", "\x1b[2J\x9b2Jgone\r\x07"])
def test_what_is_told_is_drawn_as_it_is(said: str) -> None:
    """Names, errors and reasons are neither markup nor orders to the terminal, in whichever place they stand."""
    fleet = rows(
        node={"h1": node("h1", connected=False, last_error=said), "h2": node("h2", faults={"rocm": said})},
        worker={
            "w1": worker("w1", "h2", GB, served=said),
            "w2": worker("w2", "h2", GB, model_ref=said, state="starting", detail=said),
        },
        served={"m": {"declared": {"name": said}, "state": said, "reason": said}},
        download={"d": {"reference": said, "node": said, "stage": said, "source": said}},
        task={"t": task("t", "failed", 1.0, client=said, model=said, error=said, node=said)},
    )
    text = "\n".join(drawn(fleet, width=400))
    assert not [each for each in text if each != "\n" and not each.isprintable()]
    assert text.count(said.rpartition("/")[2].replace("\x1b", "^[").replace("\x9b", "\\x9b").strip("\r\x07")) > 10
