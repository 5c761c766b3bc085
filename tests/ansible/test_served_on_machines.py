"""The served models of an inventory on a real machine: read by a queen that runs, refused before anything changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from rbee.contracts.errors import ErrorCode
from rbee.fleet.events import HostTask, Outcome
from tests.ansible.machines import MODEL, Controller
from tests.rig.host import Host
from tests.rig.rig import Rig

pytestmark = [pytest.mark.rig, pytest.mark.slow]


def queen_pid(host: Host) -> str:
    """Tell which process the queen is."""
    return host.inside("systemctl", "show", "-p", "MainPID", "--value", "queen-rbee").stdout.strip()


def served(controller: Controller) -> dict[str, list[str]]:
    """Tell which models the queen goes by, each with the machines that it may run on."""
    key = (controller.home / "secrets" / "api-key").read_text().strip()
    answer = httpx.get(f"{controller.queen_url}/v2/served", headers={"Authorization": f"Bearer {key}"})
    rows = [row["declared"] for row in answer.raise_for_status().json()["served"]]
    return {row["name"]: row["where"]["nodes"] for row in rows}


def test_a_changed_list_of_served_models_is_a_reload(rig: Rig, tmp_path: Path) -> None:
    """The queen reads it while it runs; what it refuses, or where nothing is, changes nothing; a restart reads both."""
    controller, host = Controller(rig, tmp_path, queen=True), rig["h1"]
    assert controller.play("deploy-queen", "h1").report.succeeded
    before = queen_pid(host)
    tiny: dict[str, Any] = {"name": "tiny", "model": MODEL, "where": {"groups": ["rbee_hives"]}}

    result = controller.play("rollout-queen", "h1", extra={"rbee_served_models": [tiny]})
    assert result.report.succeeded, result.report
    assert served(controller) == {"tiny": ["h1", "h2", "h3"]}
    assert queen_pid(host) == before
    assert host.inside("stat", "-c", "%U:%G %a", "/etc/rbee/served.toml").stdout.strip() == "root:rbee 640"
    assert controller.play("rollout-queen", "h1", extra={"rbee_served_models": [tiny]}).report.changed == 0

    refused: dict[str, dict[str, Any]] = {
        "'gpu_layers' (a part of a model on the CPU) is not built yet": {"gpu_layers": 3},
        "h9: no machine of the group rbee_hives has this name": {"where": {"nodes": ["h9"]}},
        "nix: the inventory has no such group": {"where": {"groups": ["nix"]}},
        "Input should be less than or equal to 64": {"replicas": 65},
    }
    for reason, change in refused.items():
        result = controller.play("rollout-queen", "h1", extra={"rbee_served_models": [{**tiny, **change}]})
        cause = result.report.hosts["h1"].cause
        assert cause is not None, reason
        assert (cause.code, reason in cause.message) == (ErrorCode.CONFIG_INVALID, True), cause
    assert queen_pid(host) == before
    assert served(controller) == {"tiny": ["h1", "h2", "h3"]}

    both = {"rbee_served_models": [{**tiny, "name": "other"}], "rbee_queen_settings": {"log_max_mb": 33}}
    result = controller.play("rollout-queen", "h1", extra=both)
    assert result.report.succeeded, result.report
    assert queen_pid(host) != before
    assert served(controller) == {"other": ["h1", "h2", "h3"]}
    assert controller.play("rollout-queen", "h1").report.succeeded
    assert served(controller) == {}
    tasks = [event for event in controller.events if isinstance(event, HostTask) and event.outcome is Outcome.CHANGED]
    assert [event.task for event in tasks].count("Reload queen-rbee") == 1
