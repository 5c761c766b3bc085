"""What Prometheus makes of the rules and the dashboard: the real program, and real daemons that it scrapes."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest

from rbee.observe import metrics
from tests.monitoring.prometheus import FILES, RULES, programs_of_debian, prometheus, values
from tests.support.hives import KEY as HIVE_KEY
from tests.support.hives import HiveProcess
from tests.support.queens import QueenProcess, machine_with_fake
from tests.support.waiting import eventually, slowness

HERE: Final = Path(__file__).parent
DASHBOARD: Final[dict[str, Any]] = json.loads((FILES / "rbee.dashboard.json").read_text())
_NAME: Final = re.compile(r"\brbee_\w+")


@pytest.fixture(name="programs", scope="module")
def _programs() -> Path:
    return programs_of_debian()


def expressions() -> list[str]:
    return [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]


def promtool(programs: Path, folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [programs / "promtool", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=60 * slowness(),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_each_alert_comes_when_it_should_and_says_what_to_do(programs: Path, tmp_path: Path) -> None:
    """A lost hive, crashes, a full device, a waiting queue, failures and a full disk are told, and nothing else is."""
    for file in (FILES / RULES, HERE / "rules_test.yml"):
        shutil.copy(file, tmp_path)
    assert "SUCCESS: 8 rules found" in promtool(programs, tmp_path, "check", "rules", RULES)
    promtool(programs, tmp_path, "test", "rules", "rules_test.yml")


def test_rules_and_dashboard_ask_only_for_metrics_that_there_are() -> None:
    """A metric that was renamed is renamed there too."""
    known = {value.name for value in vars(metrics).values() if isinstance(value, metrics.Metric)}
    asked = set(_NAME.findall((FILES / RULES).read_text())) | {
        name for expression in expressions() for name in _NAME.findall(expression)
    }
    plain = {re.sub(r"_(total|bucket|count|sum)$", "", name) for name in asked} | (asked & known)
    assert {name for name in plain if name not in known} == set()


def test_the_panels_fit_together() -> None:
    """None lies over another, each has a title and a unit, and all ask the data source that is chosen."""
    cells: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        own = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert place["x"] + place["w"] <= 24
        assert not own & cells, panel["title"]
        cells |= own
        assert panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert {target["datasource"]["uid"] for target in panel["targets"]} == {"${datasource}"}
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids) >= 12


def test_a_real_prometheus_scrapes_a_fleet_and_answers_each_panel(programs: Path, tmp_path: Path) -> None:
    """Queen and hive are up for it, with their keys; all rules are loaded, and every expression is understood."""
    with machine_with_fake(tmp_path / "queen") as machine:
        queen = QueenProcess(machine)
        queen.task(max_tokens=3)
        hive = HiveProcess(tmp_path / "hive")
        try:
            jobs = {
                "rbee-queen": (queen.url, queen.http.headers["Authorization"].removeprefix("Bearer ")),
                "rbee-hive": (hive.url, HIVE_KEY),
            }
            with prometheus(programs, tmp_path / "prometheus", jobs) as asks:
                eventually(
                    lambda: values(asks, 'up{job=~"rbee-.*"}') == [1.0, 1.0], within=30, because="both are scraped"
                )
                eventually(
                    lambda: values(asks, "rbee_queen_node_connected") == [1.0], within=10, because="the node is told"
                )
                assert values(asks, 'rbee_queen_tasks_total{outcome="done"}') == [1.0]
                assert values(asks, 'rbee_hive_disk_bytes{kind="total"}')[0] > 1_000_000
                for expression in expressions():
                    values(asks, expression.replace("$__rate_interval", "1m"))
                groups = asks.get("/api/v1/rules").json()["data"]["groups"]
                rules = [rule for group in groups for rule in group["rules"]]
                assert len(rules) == 8
                assert {rule["health"] for rule in rules} <= {"ok", "unknown"}
        finally:
            hive.close()
