"""What a run of Ansible is given, whatever ansible-runner would set by itself."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from rbee.config.paths import Paths
from rbee.fleet import runner
from rbee.fleet.runner import PlaybookRun


def test_host_keys_are_checked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Ansible is told to check host keys: ansible-runner's own default is not to."""
    from ansible_runner.interface import init_runner

    given: dict[str, str] = {}

    class StoppedError(Exception):
        """Raised instead of running."""

    def prepared(**options: Any) -> Any:
        given.update(init_runner(**options).config.env)
        raise StoppedError

    monkeypatch.setattr("ansible_runner.interface.init_runner", prepared)
    inventory = tmp_path / "hosts.yml"
    inventory.write_text("all:\n  hosts:\n")
    with pytest.raises(StoppedError):
        runner.run(
            PlaybookRun("check-fleet", inventory),
            Paths(tmp_path / "home"),
            hosts={},
            on_event=lambda _event: None,
            cancelled=lambda: False,
        )

    assert given["ANSIBLE_HOST_KEY_CHECKING"] == "True"


def test_a_command_takes_no_artefacts_from_one_that_runs(tmp_path: Path) -> None:
    """The oldest artefacts of runs that have ended go, and never those that another command is writing."""
    folder = tmp_path / "artifacts"
    folder.mkdir()
    names = [f"run{number:02}" for number in range(runner.KEPT_RUNS + 2)]

    with runner._kept(folder, names[0]):
        for age, name in enumerate(reversed(names)):
            (folder / name).mkdir()
            os.utime(folder / name, (1_000_000 - age, 1_000_000 - age))
        with runner._kept(folder, "mine"):
            left = sorted(path.name for path in folder.iterdir() if path.is_dir())

    assert left == [names[0], *names[3:]]
    assert [path.name for path in folder.iterdir() if path.is_file()] == []
