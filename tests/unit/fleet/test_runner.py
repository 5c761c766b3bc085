"""What a run of Ansible is given, whatever ansible-runner would set by itself."""

from __future__ import annotations

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
