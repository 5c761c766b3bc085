"""What `install` makes, and what it leaves alone."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError
from rbee.keeper.installer import PROGRAMS, install, system_target, user_target
from tests.support.keeper import rbee


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.B54
def test_a_users_install(tmp_path: Path) -> None:
    """Programs, folders and a config are made, private to the user; a second time changes nothing."""
    env = {"HOME": str(tmp_path / "home"), "RBEE_HOME": str(tmp_path / "home" / ".rbee")}

    first, second = rbee("install", env=env), rbee("install", "--json", env=env)

    assert (first.code, second.code) == (0, 0)
    for name in PROGRAMS:
        assert (tmp_path / "home/.local/bin" / name).resolve().is_file()
    assert mode(tmp_path / "home/.rbee") == 0o700
    assert mode(tmp_path / "home/.rbee/secrets") == 0o700
    assert "[models]" in (tmp_path / "home/.rbee/config.toml").read_text()
    assert "export PATH=" in first.stdout
    assert second.json["changed"] == []


@pytest.mark.B55
def test_a_systems_install(tmp_path: Path) -> None:
    """With --system the places are /usr/local/bin, /etc/rbee and /var/lib/rbee, here below another root."""
    ran = rbee("install", "--system", "--root", str(tmp_path))

    assert ran.code == 0, ran.stderr
    assert (tmp_path / "usr/local/bin/rbee-hive").is_symlink()
    assert (tmp_path / "etc/rbee/config.toml").is_file()
    assert mode(tmp_path / "var/lib/rbee/models") == 0o755
    assert mode(tmp_path / "var/lib/rbee/secrets") == 0o700


def test_a_config_that_is_there_stays(tmp_path: Path) -> None:
    """A config file is never written over."""
    target = user_target(tmp_path / "home", tmp_path / "data")
    target.config.parent.mkdir(parents=True)
    target.config.write_text("# mine\n")

    list(install(target))

    assert target.config.read_text() == "# mine\n"


def test_a_program_of_somebody_else_stays(tmp_path: Path) -> None:
    """A file of the same name that is not our link is named and left alone."""
    target = user_target(tmp_path, tmp_path / "data")
    target.programs.mkdir(parents=True)
    (target.programs / "rbee").write_text("other")

    with pytest.raises(RbeeError, match="left unchanged"):
        list(install(target))

    assert (target.programs / "rbee").read_text() == "other"


def test_a_system_install_without_rights_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system refuses, the sudo line is the advice."""

    def refuse(self: Path, *_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)

    with pytest.raises(RbeeError) as caught:
        list(install(system_target(tmp_path)))

    assert caught.value.code is ErrorCode.PERMISSION_DENIED
    assert "sudo" in caught.value.hint
    assert "install --system" in caught.value.hint
