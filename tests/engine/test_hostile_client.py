"""A hostile client goes once through all its attacks, beside an honest one: a short run of `make hostile`."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from tests.hostile.attacks import ATTACKS, name_of
from tests.hostile.run import run

pytestmark = pytest.mark.engine


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_no_attack_stops_or_stalls_the_service() -> None:
    """Each attack gets an answer, none an internal error; every answer of the honest client is whole."""
    said: list[str] = []
    with tempfile.TemporaryDirectory(prefix="rbee-hostile-") as root:
        findings = run(Path(root), seconds=0, seed=20, say=said.append)

    assert set(findings.answers) == {name_of(attack) for attack in ATTACKS}
    assert findings.first_s
    assert not findings.violations, findings.receipt()
