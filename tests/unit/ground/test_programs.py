"""A program that cannot be started is named with the cause, and with what to do about that cause."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError
from rbee.programs import find_program, require_program, start_error


@pytest.fixture(name="beside")
def _beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that is taken for that of the interpreter, with nothing else on PATH."""
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path / "elsewhere"))
    return tmp_path


def test_a_program_without_the_execute_bit_is_said_to_be_there(beside: Path) -> None:
    """What lies beside the interpreter and is not executable is not called absent."""
    program = beside / "rbee-hive"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o644)

    with pytest.raises(RbeeError) as caught:
        require_program("rbee-hive", "Install it.")

    assert find_program("rbee-hive") is None
    assert caught.value.code is ErrorCode.WORKER_BINARY_NOT_FOUND
    assert f"{program} is not executable" in caught.value.message
    assert f"chmod +x {program}" in caught.value.hint


def test_an_absent_program_is_to_be_installed(beside: Path) -> None:
    """What is nowhere is told with the place where it was looked for."""
    with pytest.raises(RbeeError, match=f"neither in {beside} nor on PATH") as caught:
        require_program("rbee-hive", "Install it.")

    assert caught.value.hint == "Install it."


@pytest.mark.parametrize(
    ("content", "mode", "advice"),
    [("#!/bin/sh\n", 0o644, "chmod +x"), ("#!/no/such/python\n", 0o755, "Python that its first line names")],
)
def test_what_the_system_does_not_start_is_not_called_unwritable(
    tmp_path: Path, content: str, mode: int, advice: str
) -> None:
    """A start that fails is about the program, and advises about it."""
    program = tmp_path / "program"
    program.write_text(content)
    program.chmod(mode)
    with pytest.raises(OSError, match="program") as caught:
        subprocess.run([str(program)], check=True)

    error = start_error(program, caught.value)

    assert str(program) in error.message
    assert "written" not in error.message
    assert advice in error.hint
