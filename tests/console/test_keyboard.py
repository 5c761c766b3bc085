"""The page by keyboard alone: everything is reached with Tab, the focus is seen, and no action loses it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.console.browser import browse, link
from tests.support.machine import Machine
from tests.support.queens import QueenProcess

pytestmark = [pytest.mark.xdist_group("clients"), pytest.mark.timeout(600)]


def test_each_view_is_reached_and_a_model_declared(modules: Path, machine: Machine) -> None:
    """Tab and Enter open every view, a form is filled in and sent, and what was pressed keeps the focus."""
    queen = QueenProcess(machine)
    queen.task(max_tokens=2)
    found = browse(
        modules,
        link(machine),
        *(
            step
            for view in ("Activity", "Chat", "Logs", "Keys", "Fleet", "Models")
            for step in (("tabs_to", view), ("presses", "Enter"), ("is_at", view))
        ),
        ("tabs_to", "Declare a model"),
        ("presses", "Enter"),
        ("tabs_to", "Name"),
        ("types", "rose"),
        ("presses", "Tab"),
        ("types", queen.model),
        ("presses", "Tab"),
        ("types", "0"),
        ("tabs_to", "Declare"),
        ("presses", "Enter"),
        ("sees", "on demand"),
        ("focused",),
        ("tabs_to", "Models"),
        ("tabs_to", "Load"),
        ("presses", "Enter"),
        ("sees", "Unload"),
        ("focused",),
    )
    assert found["texts"] == ["Declare", "Unload"]


def test_a_message_is_sent_and_the_next_can_be_typed(modules: Path, machine: Machine) -> None:
    """Enter sends from where it is typed, and the focus stays there while the answer comes and when it has ended."""
    machine.fake(tokens_per_s=10)  # so that it is not over before it is stopped
    queen = QueenProcess(machine)
    queen.task(max_tokens=2)
    found = browse(
        modules,
        link(machine),
        ("tabs_to", "Chat"),
        ("presses", "Enter"),
        ("tabs_to", "Message"),
        ("types", "Bees?"),
        ("presses", "Enter"),
        ("sees", "one"),
        ("focused",),
        ("tabs_to", "Stop"),
        ("presses", "Enter"),
        ("gone_button", "Stop"),
        ("focused",),
    )
    assert found["texts"] == ["Message", "Message"]


def test_a_request_is_canceled(modules: Path, machine: Machine) -> None:
    """Its button is reached, and the focus is not lost with the button."""
    machine.fake(tokens_per_s=5)
    queen = QueenProcess(machine)
    with ThreadPoolExecutor() as pool:
        running = pool.submit(queen.task, max_tokens=1500)
        found = browse(
            modules,
            link(machine),
            ("tabs_to", "Activity"),
            ("presses", "Enter"),
            ("sees", "running"),
            ("tabs_to", "Cancel"),
            ("presses", "Enter"),
            ("sees", "CANCELED"),
            ("gone_button", "Cancel"),
            ("focused",),
        )
        assert running.result(60)[-1][0] == "error"
    assert found["texts"][0].startswith("canceled")
