"""What a command loads before it does anything, seen in interpreters of their own."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = (
    "rich",
    "pydantic",
    "httpx",
    "yaml",
    "ruamel.yaml",
    "ansible_runner",
    "starlette",
    "structlog",
    "sqlalchemy",
    "llama_cpp",
)
LOADED = """
import json, sys
sys.argv = ["rbee-keeper", *json.loads(sys.argv[1])]
from rbee.keeper.cli import main
try:
    code = main()
except SystemExit as end:
    code = end.code
print(json.dumps([code or 0, sorted(sys.modules)]), file=sys.stderr)
"""


def run(*arguments: str) -> tuple[int, str, set[str]]:
    """Run the keeper in a fresh interpreter: exit code, stdout, loaded modules."""
    command = [sys.executable, "-c", LOADED, json.dumps(arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    code, modules = json.loads(done.stderr.splitlines()[-1])
    return code, done.stdout, set(modules)


@pytest.mark.parametrize("argument", ["--help", "--version"])
def test_help_and_version_load_nothing_heavy(argument: str) -> None:
    """`rbee-keeper --help` and `--version` load none of the heavy libraries."""
    code, output, modules = run(argument)

    assert code == 0
    assert "rbee-keeper" in output
    assert modules.isdisjoint(HEAVY)
