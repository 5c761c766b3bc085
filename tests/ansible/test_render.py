"""The units for machines that cannot run here: rendered from given facts, and checked by those who would read them."""

from __future__ import annotations

import json
import plistlib
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.support.checkout import ROOT

ANSIBLE = Path(sys.executable).parent / "ansible-playbook"


@pytest.fixture(name="rendered", scope="module")
def _rendered(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Give for each variant the folder with a hive's files for such a machine."""
    return {
        variant: render(tmp_path_factory.mktemp(variant), system=system, variant=variant)
        for variant, system in (("cpu", "linux"), ("cuda", "linux"), ("metal", "darwin"))
    }


def render(folder: Path, *, system: str, variant: str, hosts: str = "localhost,", **variables: Any) -> Path:
    """Render a hive's and a queen's files for a machine, with these variables of its inventory."""
    units: dict[str, Any] = {
        name: {"known": False, "active": "unknown", "release": ""} for name in ("rbee-hive", "queen-rbee")
    }
    extra = {
        "render_into": str(folder),
        "render_machine": {"system": system, "machine": "arm64", "units": units, "releases": {}, "groups": ["render"]},
        "render_accelerator": {"variant": variant, "toolkit": "12.4" if variant == "cuda" else ""},
        **variables,
    }
    command = [
        str(ANSIBLE),
        "-i",
        hosts,
        str(ROOT / "tests" / "ansible" / "render.yml"),
        "-e",
        json.dumps(extra),
    ]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    return folder


@pytest.mark.parametrize(("variant", "private"), [("cpu", True), ("cuda", False)])
def test_only_a_hive_with_a_gpu_sees_devices(rendered: dict[str, Path], variant: str, *, private: bool) -> None:
    """The CUDA unit keeps all hardening but what hides devices, and joins the groups that guard them."""
    unit = (rendered[variant] / "rbee-hive.service").read_text()

    assert ("PrivateDevices=yes" in unit) is private
    assert ("SupplementaryGroups=render" in unit) is not private
    assert ("ExecStartPre=-+/bin/sh -c 'timeout 20 nvidia-smi" in unit) is not private
    assert "DeviceAllow=" not in unit
    assert "MemoryDenyWriteExecute=" not in unit
    for kept in ("NoNewPrivileges=yes", "ProtectSystem=strict", "CapabilityBoundingSet=\n", "KillMode=mixed"):
        assert kept in unit


@pytest.mark.parametrize("variant", ["cpu", "cuda"])
def test_systemd_understands_the_unit(rendered: dict[str, Path], variant: str, tmp_path: Path) -> None:
    """systemd-analyze finds no setting that it does not know and no value that it cannot read."""
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not on this machine")
    text = (rendered[variant] / "rbee-hive.service").read_text()
    unit = tmp_path / "rbee-hive.service"
    # The program itself is not here, and that is all that may be missing.
    unit.write_text(text.replace("/opt/rbee/releases/1.2.3-abc/bin/rbee-hive", "/bin/true"))

    run = subprocess.run([analyze, "verify", "--man=no", str(unit)], capture_output=True, text=True, check=False)

    said = [line for line in run.stderr.splitlines() if "rbee-hive.service" in line]
    assert said == []


def test_launchd_gets_a_property_list(rendered: dict[str, Path]) -> None:
    """On a Mac the hive is a launchd job that is restarted when it fails, and has time to drain."""
    job = plistlib.loads((rendered["metal"] / "org.rbee.hive.plist").read_bytes())

    assert job["ProgramArguments"] == ["/opt/rbee/releases/1.2.3-abc/bin/rbee-hive"]
    assert job["KeepAlive"] == {"SuccessfulExit": False}
    assert job["ExitTimeOut"] == 60
    assert job["UserName"] == "rbee"
    assert job["EnvironmentVariables"]["CREDENTIALS_DIRECTORY"] == "/etc/rbee/credentials"


def test_the_config_is_one_that_the_hive_takes(rendered: dict[str, Path]) -> None:
    """The rendered file has the settings that the hive declares, and no key."""
    folder = rendered["cpu"]

    run = check_config(folder)

    assert run.returncode == 0, run.stderr
    table = tomllib.loads((folder / "hive.toml").read_text())["hive"]
    assert table["host"] == "0.0.0.0"
    assert not [name for name in table if "key" in name]


def check_config(folder: Path) -> subprocess.CompletedProcess[str]:
    """Have the hive itself look at its rendered file, as the role does before the file lands."""
    command = [str(Path(sys.executable).parent / "rbee-hive"), "--check-config", str(folder / "hive.toml")]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_any_setting_of_the_engine_can_stand_in_the_inventory(tmp_path: Path) -> None:
    """`rbee_hive_settings` takes what has no variable of its own; what cannot be together never lands."""
    chosen = {
        "cache_type": "q8_0",
        "flash_attention": True,
        "prompt_batch": 256,
        "speculate": 8,
        "context_length": 8192,
    }
    good, bad = render(tmp_path, system="linux", variant="cuda", rbee_hive_settings=chosen), tmp_path / "bad"
    bad.mkdir()
    rendered = (good / "hive.toml").read_text()
    (bad / "hive.toml").write_text(rendered.replace("flash_attention = true", "flash_attention = false"))

    assert check_config(good).returncode == 0
    table = tomllib.loads(rendered)["hive"]
    assert {name: table[name] for name in chosen} == chosen
    refused = check_config(bad)
    assert refused.returncode == 78
    assert "cache_type q8_0 needs flash attention" in refused.stderr


def test_served_models_are_ones_that_the_queen_takes(tmp_path: Path) -> None:
    """Names with dots, texts of any kind, nothing for what is empty, and the hives of groups for `where: groups`."""
    hosts = tmp_path / "hosts"
    hosts.write_text("localhost\n[rbee_hives]\nh1\nh2\nh3\n[gpu]\nh3\nh2\ndesk\n")
    text = 'a "word", and \U0001f41d'
    declared: list[dict[str, Any]] = [
        {
            "name": "qwen3.5",
            "model": "hf:org/repo",
            "keep": "2h",
            "slots": None,
            "where": {"groups": ["gpu"], "nodes": ["h1", "h2"], "backend": "cuda", "devices": [0, 1]},
            "presets": {"exact": {"temperature": 0.5, "system": text, "enable_thinking": False}},
            "fallback": ["small"],
        },
        {"name": "small", "model": "hf:org/small", "where": {}},
    ]

    folder = render(tmp_path, system="linux", variant="cpu", hosts=str(hosts), rbee_served_models=declared)

    rendered = (folder / "served.toml").read_text()
    tables = tomllib.loads(rendered)["served"]
    assert tables["qwen3.5"] == {
        **{key: declared[0][key] for key in ("model", "keep", "presets", "fallback")},
        "where": {"backend": "cuda", "devices": [0, 1], "nodes": ["h1", "h2", "h3"]},
    }
    assert tables["small"] == {"model": "hf:org/small"}
    command = [str(Path(sys.executable).parent / "queen-rbee"), "--check-config", "-"]
    checked = subprocess.run(command, input=rendered, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
