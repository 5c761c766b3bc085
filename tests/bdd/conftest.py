"""Fixtures and steps of the scenarios, and a last look into every log."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest
from pytest_bdd.parser import Scenario

from tests.bdd.steps.chat import *
from tests.bdd.steps.clients import *
from tests.bdd.steps.console import *
from tests.bdd.steps.daemons import *
from tests.bdd.steps.faults import *
from tests.bdd.steps.hostile import *
from tests.bdd.steps.hub import *
from tests.bdd.steps.inventory import *
from tests.bdd.steps.keeper import *
from tests.bdd.steps.keys import *
from tests.bdd.steps.machine import *
from tests.bdd.steps.neighbours import *
from tests.bdd.steps.other_servers import *
from tests.bdd.steps.presets import *
from tests.bdd.steps.reranking import *
from tests.bdd.steps.served import *
from tests.bdd.steps.tools import *
from tests.bdd.steps.usage import *
from tests.bdd.steps.workers import *
from tests.console.browser import node_modules
from tests.support.hub import Hub
from tests.support.machine import Machine

# A bug that no Then notices is still a bug.
_ALARMS = re.compile(r"Traceback|\bBUG\b|never awaited|was never retrieved")


@pytest.fixture(name="machine")
def _machine() -> Iterator[Machine]:
    # Sockets and lifelines live below the home: pytest's own folders make paths too long for them.
    with tempfile.TemporaryDirectory(prefix="rbee-bdd-") as root:
        machine = Machine(Path(root))
        try:
            yield machine
        finally:
            machine.close()
        alarms = {
            name: [line for line in text.splitlines() if _ALARMS.search(line)] for name, text in machine.logs().items()
        }
        assert not any(alarms.values()), f"a daemon logged a bug: {alarms}"


@pytest.fixture(name="hub")
def _hub() -> Iterator[Hub]:
    with Hub() as hub:
        yield hub


def pytest_bdd_apply_tag(tag: str, function: Callable[..., object]) -> None:
    """Give a slow scenario ten minutes: it may have to install a browser or Prometheus first."""
    if tag == "slow":
        pytest.mark.timeout(600)(function)


def pytest_bdd_before_scenario(scenario: Scenario) -> None:
    """Install the browser before a scenario that needs one begins: a link that was printed is good for a minute."""
    if "B94" in scenario.tags:
        node_modules()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the ends of all logs to a scenario that failed."""
    report = yield
    machine = getattr(item, "funcargs", {}).get("machine")
    if report.failed and machine is not None:
        for name, text in machine.logs().items():
            report.sections.append((f"log {name}", "\n".join(text.splitlines()[-30:])))
    return report
