"""Numbered changes of rows: what a reader gets, whenever it comes, comes back, or falls behind."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from rbee.queen.events.change_log import PART_BYTES, ChangeLog, Key

ROWS = st.dictionaries(
    st.builds(Key, st.sampled_from(["node", "worker"]), st.sampled_from("abc")),
    st.sampled_from([b"1", b"2", b'{"x": "\\u00e4"}', None]),
    max_size=4,
)


def apply(state: dict[Key, Any], body: bytes) -> None:
    """Do what a reader does with the body of an event."""
    for change in json.loads(body)["changes"]:
        key = Key(change["kind"], change["id"])
        if change["row"] is None:
            del state[key]
        else:
            state[key] = change["row"]


@given(updates=st.lists(ROWS, max_size=12), comes=st.integers(0, 12), kept=st.integers(0, 400))
def test_whoever_reads_has_what_is_there(updates: list[dict[Key, bytes | None]], comes: int, kept: int) -> None:
    """All rows and what followed, or only what followed where that is kept, make up the rows as they are."""
    log = ChangeLog("run", kept)
    expected: dict[Key, Any] = {}
    reader: dict[Key, Any] = {}
    number = 0
    for index, rows in enumerate(updates):
        if index == comes:
            reader, number = {}, log.number
            for part in log.snapshot():
                apply(reader, part)
        log.update(rows)
        for key, row in rows.items():
            if row is None:
                expected.pop(key, None)
            else:
                expected[key] = json.loads(row)
    if comes >= len(updates):
        number = 0
    batches = log.since(number)
    if batches is None:
        reader = {}
        for part in log.snapshot():
            apply(reader, part)
    else:
        assert [batch.number for batch in batches] == list(range(number + 1, log.number + 1))
        for batch in batches:
            apply(reader, batch.body)
    assert reader == expected


def test_what_changes_nothing_is_no_event() -> None:
    """The same row again, and the end of what was not there, wake nobody."""
    log = ChangeLog("run")
    assert log.update({Key("node", "a"): b"1"}) is True
    assert log.update({Key("node", "a"): b"1", Key("node", "b"): None}) is False
    assert log.number == 1


def test_a_reader_goes_on_only_where_nothing_is_missed() -> None:
    """The id of another run, of the future, or of what is not kept any more makes it begin anew."""
    log = ChangeLog("run", 100)
    for number in range(10):
        log.update({Key("node", "a"): str(number).encode()})
    assert log.position(log.id(10)) == 10
    assert log.position(log.id(9)) == 9
    for gone in (None, "", "run", "run-", "run-x", "run--1", log.id(11), log.id(1), "other-10", "run-9 ", "-9"):
        assert log.position(gone) is None, gone


def test_a_large_fleet_comes_in_parts_that_are_made_once() -> None:
    """No event is much larger than its bound, and readers that come together share them."""
    log = ChangeLog("run")
    log.update({Key("worker", f"w{number}"): b'"' + b"x" * 500 + b'"' for number in range(1000)})
    parts = log.snapshot()
    assert len(parts) > 5
    assert max(map(len, parts)) < PART_BYTES + 1000
    assert log.snapshot() is parts
    state: dict[Key, Any] = {}
    for part in parts:
        apply(state, part)
    assert len(state) == 1000
    log.update({Key("worker", "w1"): None})
    assert log.snapshot() is not parts
