"""The dashboard against Grafana's own schema, which npm has as types."""

from __future__ import annotations

import copy
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.clients.installation import install
from tests.monitoring.prometheus import FILES
from tests.support.waiting import slowness

pytestmark = [pytest.mark.xdist_group("clients"), pytest.mark.timeout(300)]
TYPES = Path(__file__).with_name("dashboard_types.ts")
DASHBOARD: dict[str, Any] = json.loads((FILES / "rbee.dashboard.json").read_text())


@pytest.fixture(name="modules", scope="module")
def _modules() -> Path:
    """Give the npm packages with the schema and its checker; skip where they cannot be had."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip("dashboard: node and npm are not installed")
    command = [npm, "install", "--no-package-lock", "--no-audit", "--no-fund"]
    return install("grafana", TYPES.with_name("package.json"), [command]) / "node_modules"


def complaints(modules: Path, folder: Path, dashboard: dict[str, Any]) -> str:
    """Return what is wrong with a dashboard, by the schema."""
    (folder / "node_modules").symlink_to(modules)
    shutil.copy(TYPES, folder)
    head = 'import type { Ours } from "./dashboard_types";\nexport const ours: Ours ='
    (folder / "dashboard.ts").write_text(f"{head} {json.dumps(dashboard, indent=2)};\n")
    options = ["--noEmit", "--strict", "--skipLibCheck", "--module", "esnext", "--moduleResolution", "bundler"]
    command = ["node", str(modules / "typescript" / "bin" / "tsc"), *options, "dashboard.ts"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=120 * slowness())
    return done.stdout + done.stderr


def test_it_is_what_grafana_takes(modules: Path, tmp_path: Path) -> None:
    """Each field of the dashboard, of its panels, of their options and of their queries is one of the schema."""
    assert complaints(modules, tmp_path, DASHBOARD) == ""


def _set(path: str, value: object) -> Callable[[dict[str, Any]], None]:
    def change(dashboard: dict[str, Any]) -> None:
        *way, last = path.split(".")
        found: Any = dashboard
        for step in way:
            found = found[int(step) if step.isdigit() else step]
        found[last] = value

    return change


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (_set("refreshes", "10s"), "refreshes"),
        (_set("panels.0.options.colourMode", "value"), "colourMode"),
        (_set("panels.4.fieldConfig.defaults.custom.stacking.mode", "sideways"), "sideways"),
        (_set("panels.4.targets.0.query", "up"), "query"),
        (_set("panels.4.gridPos.w", "wide"), "'number'"),
    ],
)
def test_a_fault_is_found(modules: Path, tmp_path: Path, change: Callable[[dict[str, Any]], None], named: str) -> None:
    """A field that Grafana does not know, or a value that it does not take, is named."""
    faulty = copy.deepcopy(DASHBOARD)
    change(faulty)
    assert named in complaints(modules, tmp_path, faulty)
