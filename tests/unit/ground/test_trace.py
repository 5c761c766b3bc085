"""Trace ids: taken from a client's header if it is one, else made."""

from __future__ import annotations

import re

import pytest

from rbee.observe import trace

ID = "4bf92f3577b34da6a3ce929d0e0e4736"


def test_a_clients_trace_is_taken() -> None:
    """A trace context of the standard's form gives its id, also of a later version with more fields."""
    assert trace.extract(f"00-{ID}-00f067aa0ba902b7-01".encode()) == ID
    assert trace.extract(f"01-{ID}-00f067aa0ba902b7-00-more".encode()) == ID


@pytest.mark.parametrize(
    "header",
    [
        None,
        b"",
        b"rubbish",
        f"ff-{ID}-00f067aa0ba902b7-01".encode(),
        f"00-{'0' * 32}-00f067aa0ba902b7-01".encode(),
        f"00-{ID}-{'0' * 16}-01".encode(),
        f"00-{ID.upper()}-00f067aa0ba902b7-01".encode(),
        b"\xff" * 55,
    ],
)
def test_what_is_no_trace_is_replaced(header: bytes | None) -> None:
    """Without a valid header a request begins a trace of its own."""
    made = trace.extract(header)

    assert re.fullmatch("[0-9a-f]{32}", made)
    assert made != ID


def test_it_is_passed_on_with_a_new_parent() -> None:
    """Each hop keeps the id and names itself; outside of a request nothing is passed on."""
    assert trace.inject() == {}
    token = trace.trace_id.set(ID)
    try:
        first, second = trace.inject()[trace.HEADER], trace.inject()[trace.HEADER]
    finally:
        trace.trace_id.reset(token)

    assert trace.extract(first.encode()) == trace.extract(second.encode()) == ID
    assert first != second
