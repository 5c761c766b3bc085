"""What a daemon prints of its settings."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.process
PASSWORD = "correct-horse-battery-staple"


@pytest.mark.parametrize(
    ("module", "secrets"),
    [
        ("rbee.queen", {"RBEE_QUEEN_DATABASE_URL": f"postgresql://me:{PASSWORD}@db/rbee"}),
        (
            "rbee.hive",
            {"RBEE_HIVE_MODELS_DB": f"postgresql://me:{PASSWORD}@db/rbee", "RBEE_HIVE_API_KEY": PASSWORD},
        ),
        ("rbee.worker", {"RBEE_WORKER_API_KEY": PASSWORD, "RBEE_WORKER_MODEL_PATH": "/m.gguf"}),
    ],
)
def test_no_listing_shows_a_secret(module: str, secrets: dict[str, str], tmp_path: Path) -> None:
    """--print-config shows every setting with its source, and of a secret only that it is set."""
    done = subprocess.run(
        [sys.executable, "-m", module, "--print-config"],
        env={**os.environ, "RBEE_HOME": str(tmp_path), **secrets},
        capture_output=True,
        text=True,
        check=True,
    )

    assert PASSWORD not in done.stdout + done.stderr
    shown = json.loads(done.stdout)
    for variable in secrets:
        key = variable.removeprefix(f"{module.upper().replace('.', '_')}_").lower()
        assert shown[key]["source"] == variable
    assert shown["port"]["source"] == "default"


@pytest.mark.parametrize("module", ["rbee.queen", "rbee.hive", "rbee.worker"])
def test_no_daemon_takes_a_secret_as_an_argument(module: str, tmp_path: Path) -> None:
    """A secret has no option, and none that is abbreviated to it."""
    done = subprocess.run(
        [sys.executable, "-m", module, "--api-key", PASSWORD, "--print-config"],
        env={**os.environ, "RBEE_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 2
    assert "unrecognized arguments" in done.stderr
    assert not done.stdout
