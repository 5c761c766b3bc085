"""The page's chat with the real model: what it writes, and what is told of each answer."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.console.browser import browse, link
from tests.support.machine import Machine
from tests.support.models import smollm2_path
from tests.support.queens import QueenProcess

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]


@pytest.fixture(name="machine")
def _machine(tmp_path: Path) -> Iterator[Machine]:
    machine = Machine(tmp_path)
    try:
        yield machine
    finally:
        machine.close()


def test_the_model_answers_and_reads_only_what_is_new(modules: Path, machine: Machine) -> None:
    """Each answer says how fast it came; the second turn takes what was read before from the cache."""
    queen = QueenProcess(machine)
    declared = {"model": f"file://{smollm2_path()}", "replicas": 1}
    queen.http.put("/v2/served/smol", json=declared).raise_for_status()
    found = browse(
        modules,
        link(machine),
        ("view", "models"),
        ("sees", "serving"),
        ("view", "chat"),
        ("opens", "System prompt and sampling"),
        ("fills", "Most tokens", "24"),
        ("fills", "Message", "What do bees eat?"),
        ("click", "Send"),
        ("sees", "tokens, first after"),
        ("text", ".turn:nth-child(2)"),
        ("fills", "Message", "And what do wasps eat?"),
        ("click", "Send"),
        ("counts", ".turn .who:has-text('tokens/s')", 2),
        ("text", ".turn:nth-child(4)"),
        ("shot", "real-model"),
        ("view", "activity"),
        ("sees", "done"),
        ("shot", "real-model-activity"),
    )
    first, second = found["texts"]
    told = re.compile(
        r"Model · (\d+) tokens, first after [\d.]+ s, \d+ tokens/s, (\d+) of (\d+) cached\n+(.+)", re.DOTALL
    )
    before, after = told.match(first), told.match(second)
    assert before, first
    assert after, second
    assert before[4].strip()
    assert int(after[3]) > int(before[3])
    assert int(after[2]) >= int(before[3])
