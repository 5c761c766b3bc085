"""The scenarios of features/fleet, on real machines that all of them share."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_bdd import scenarios

from tests.bdd.steps.fleet import *
from tests.bdd.steps.fleet import Operator
from tests.bdd.steps.fleet_faults import *
from tests.rig.fixtures import _Shared
from tests.support.machine import Machine


@pytest.fixture(name="machine", scope="module")
def _machine() -> Iterator[Machine]:
    with tempfile.TemporaryDirectory(prefix="rbee-bdd-") as root:
        machine = Machine(Path(root))
        try:
            yield machine
        finally:
            machine.close()


@pytest.fixture(scope="module")
def operator(machine: Machine, _shared_rig: _Shared) -> Operator:
    if _shared_rig.used:
        _shared_rig.rig.reset()
    _shared_rig.used = True
    return Operator(machine, _shared_rig.rig)


@pytest.fixture
def model() -> str:
    return "demo"


scenarios("fleet/machines.feature")
scenarios("fleet/hives.feature")
scenarios("fleet/faults.feature")
scenarios("fleet/removal.feature")
