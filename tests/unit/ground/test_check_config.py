"""A config that its reader may not open yet is checked from standard input."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(("text", "code"), [("[hive]\nslots = 3\n", 0), ("[hive]\nslotz = 3\n", 78), ("[hive", 78)])
def test_a_config_comes_by_standard_input(text: str, code: int) -> None:
    """`--check-config -` reads what a role pipes to it, and says what is wrong as for a file."""
    program = Path(sys.executable).parent / "rbee-hive"

    done = subprocess.run(
        [program, "--check-config", "-"], input=text, capture_output=True, text=True, timeout=30, check=False
    )

    assert done.returncode == code, done.stderr
