"""Every promised behaviour has a scenario."""

from __future__ import annotations

import re

from tests.conftest import BEHAVIOURS
from tests.support.checkout import ROOT


def test_every_behaviour_has_a_scenario() -> None:
    """Each id from B01 to B71 is the tag of at least one scenario, and no scenario names another."""
    found = {
        tag for file in (ROOT / "features").rglob("*.feature") for tag in re.findall(r"@(B\d+)\b", file.read_text())
    }

    assert found == set(BEHAVIOURS)
