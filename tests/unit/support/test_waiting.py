"""How long tests wait: longer on a machine that is busy; and what they hear: Ctrl-C, however they were started."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys

import pytest

from tests.support.checkout import ROOT
from tests.support.waiting import MOST_PATIENT, eventually, load_factor, slowness

_SIGNALS = "import signal; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"


@pytest.mark.parametrize(
    ("wanting", "processors", "factor"), [(0.1, 2, 1.0), (2.0, 2, 1.0), (6.0, 2, 3.0), (90.0, 2, MOST_PATIENT)]
)
def test_deadlines_grow_with_the_load(wanting: float, processors: int, factor: float) -> None:
    """Each of three processes for a processor gets a third of it; there is an end to patience."""
    assert load_factor(wanting, processors) == factor


def test_the_slower_of_what_is_asked_and_measured_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A person may ask for more time than the load does, and not for less."""
    monkeypatch.setattr(os, "getloadavg", lambda: (2.0 * (os.cpu_count() or 1), 0.0, 0.0))

    monkeypatch.setenv("RBEE_TEST_SLOWNESS", "3")
    assert slowness() == 3.0
    monkeypatch.setenv("RBEE_TEST_SLOWNESS", "1")
    assert slowness() == 2.0


def test_load_that_comes_while_waiting_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wait that began on a quiet machine is not over while a busy one still works."""
    monkeypatch.setenv("RBEE_TEST_SLOWNESS", "1")
    loads = itertools.chain([0.0], itertools.repeat(100.0))
    monkeypatch.setattr(os, "getloadavg", lambda: (next(loads), 0.0, 0.0))
    tries = itertools.count(1)

    assert eventually(lambda: next(tries) > 4, within=0.02, because="the fourth try is late") is True


def test_a_program_hears_an_interrupt() -> None:
    """What a test starts ends at Ctrl-C."""
    done = subprocess.run([sys.executable, "-c", _SIGNALS], capture_output=True, text=True, check=True)

    assert done.stdout == "True\n"


def test_tests_that_a_script_left_in_the_background_hear_it_too() -> None:
    """A shell ignores SIGINT for these, which the programs under test would inherit."""
    inner = f"{__file__}::{test_a_program_hears_an_interrupt.__name__}"
    command = f"trap '' INT QUIT; exec {sys.executable} -m pytest -q -p no:cacheprovider {inner}"

    done = subprocess.run(["/bin/sh", "-c", command], cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout
