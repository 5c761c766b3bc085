"""Run the scenarios and print for each promised behaviour whether it holds: `python -m tests.bdd.behaviours`.

Writes `.bench/behaviours.json`: a list of `{id, scenarios, passed, skipped, failed}`. The exit code is 1 where a
behaviour failed, has no scenario, or was not shown by any.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass

import pytest

from tests.conftest import BEHAVIOURS
from tests.support.checkout import ROOT

LATEST = ROOT / ".bench" / "behaviours.json"


@dataclass(slots=True)
class Row:
    """What became of the scenarios of one behaviour."""

    id: str
    scenarios: int = 0
    passed: int = 0
    skipped: int = 0
    failed: int = 0

    @property
    def holds(self) -> bool:
        """Return whether a scenario has shown it, and none has refuted it."""
        return self.passed > 0 and not self.failed


class Tally:
    """Counts every scenario that was run, in this process or by pytest-xdist in others."""

    def __init__(self) -> None:
        self.rows = {behaviour: Row(behaviour) for behaviour in BEHAVIOURS}
        self.reasons: dict[str, set[str]] = {}

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count a scenario once: when it was called, or when that could not even begin."""
        if report.when != "call" and report.passed:
            return
        for behaviour in self.rows.keys() & set(report.keywords):
            row = self.rows[behaviour]
            # A teardown that fails comes after a call that was counted.
            row.scenarios += report.when != "teardown"
            row.passed += report.passed
            row.skipped += report.skipped
            row.failed += report.failed
            if report.skipped and isinstance(report.longrepr, tuple):
                self.reasons.setdefault(behaviour, set()).add(report.longrepr[2])


def table(tally: Tally) -> str:
    """Format the rows as a table."""
    lines = [f"{'id':<5}{'scenarios':>10}{'passed':>8}{'skipped':>9}{'failed':>8}"]
    for row in tally.rows.values():
        remark = "; ".join(sorted(tally.reasons.get(row.id, ())))
        state = "" if row.holds else "NOT SHOWN" if not row.failed else "BROKEN"
        lines.append(
            f"{row.id:<5}{row.scenarios:>10}{row.passed:>8}{row.skipped:>9}{row.failed:>8}  {state} {remark}".rstrip()
        )
    held = sum(row.holds for row in tally.rows.values())
    return "\n".join([*lines, "", f"{held} of {len(tally.rows)} behaviours hold."])


def main() -> int:
    """Run all scenarios, print the table, write it as JSON."""
    tally = Tally()
    options = sys.argv[1:] or ["-n", "2"]
    code = pytest.main([str(ROOT / "tests" / "bdd"), "-q", "-rs", *options], plugins=[tally])
    LATEST.parent.mkdir(exist_ok=True)
    aside = LATEST.with_suffix(".new")
    aside.write_text(json.dumps([asdict(row) for row in tally.rows.values()], indent=1) + "\n", encoding="utf-8")
    aside.replace(LATEST)
    print(f"\n{table(tally)}\nWritten to {LATEST.relative_to(ROOT)}")
    return 0 if code == 0 and all(row.holds for row in tally.rows.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
