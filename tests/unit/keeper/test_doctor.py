"""What `doctor` finds, and where it looks for it."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from rbee.config.file import ConfigFile
from rbee.keeper.doctor import Finding, Verdict, run_checks
from rbee.keeper.settings import load


def findings(tmp_path: Path) -> dict[str, Finding]:
    environ = {"RBEE_HOME": str(tmp_path), "RBEE_QUEEN_URL": "http://127.0.0.1:9"}
    return {finding.check: finding for finding in run_checks(load(environ, ConfigFile(None)))}


def program(folder: Path, name: str) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


def test_programs_beside_the_interpreter_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What lies beside the running interpreter is found, also where its folder is not on PATH."""
    beside = program(tmp_path / "venv", "ansible-playbook")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "venv" / "python"))
    monkeypatch.setenv("PATH", "")

    found = findings(tmp_path)

    assert found["ansible-playbook"] == Finding("ansible-playbook", Verdict.OK, str(beside))


def test_a_tool_for_other_machines_is_optional(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing tool that only other machines need is a note with its installation, not a problem."""
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert shutil.which("ssh") is None

    found = findings(tmp_path)

    assert found["ansible-playbook"].verdict is Verdict.NOTE
    assert "rbee[fleet]" in found["ansible-playbook"].advice


def test_a_missing_program_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program of rbee that is not installed is a problem."""
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", "")

    assert findings(tmp_path)["rbee-hive"].verdict is Verdict.PROBLEM
