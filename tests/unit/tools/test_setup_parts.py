"""The parts of `make setup`: steps that fail with their reason, and where packages come from."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tools import packages
from tools.longstep import StepError, run_quietly, run_with_progress


def test_a_failed_step_shows_the_end_of_its_log(tmp_path: Path) -> None:
    """When a long step fails, what it printed last is in the message, with the place of the whole log."""
    log = tmp_path / "log"
    script = "print('all was well'); print('[3/7] then it broke'); raise SystemExit(3)"

    with pytest.raises(StepError, match="then it broke") as raised:
        run_with_progress("building", [sys.executable, "-c", script], log=log)

    assert str(log) in str(raised.value)


def test_a_failed_command_shows_its_output() -> None:
    """When a short command fails, the message has the command and all it printed."""
    with pytest.raises(StepError, match="no such thing"):
        run_quietly([sys.executable, "-c", "import sys; sys.exit('no such thing')"])


def test_pips_own_settings_are_handed_to_uv(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where pip is set to look, uv looks too; what the person set for uv itself stays."""
    (tmp_path / "pip.conf").write_text(
        "[global]\nindex-url = https://mirror.example/simple\nextra-index-url = https://a.example\n  https://b.example\n"
    )
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    monkeypatch.setenv("PIP_FIND_LINKS", "wheels more-wheels")
    monkeypatch.setenv("UV_INDEX_STRATEGY", "first-index")

    settings = packages._uv_settings(Path(sys.executable))

    assert settings["UV_DEFAULT_INDEX"] == "https://mirror.example/simple"
    assert settings["UV_INDEX"].endswith("https://a.example https://b.example")
    assert settings["UV_FIND_LINKS"] == "wheels,more-wheels"
    assert "UV_INDEX_STRATEGY" not in settings
