"""The cache of client programs: made once, whole or not at all, in a bounded time."""

from __future__ import annotations

import sys
from pathlib import Path

import psutil
import pytest

from tests.clients.installation import install
from tests.support.waiting import eventually, slowness


@pytest.fixture(name="manifest")
def _manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return what is to be installed, on a machine with a cache of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "manifest"
    path.write_text("bees==1", encoding="utf-8")
    return path


def python(code: str) -> list[list[str]]:
    """Return the commands of an installation that runs *code*."""
    return [[sys.executable, "-c", code]]


def test_what_is_installed_is_kept_until_its_pins_change(manifest: Path) -> None:
    """A second run installs nothing; other versions are installed beside them."""
    first = install("test", manifest, python("open('made', 'w')"))

    assert install("test", manifest, python("raise SystemExit('not again')")) == first
    assert (first / "made").exists()
    manifest.write_text("bees==2", encoding="utf-8")
    second = install("test", manifest, python("open('made', 'w')"))
    assert second != first
    assert (second / "made").exists()


def test_what_cannot_be_had_is_skipped_with_its_reason_and_tried_again(manifest: Path) -> None:
    """The skip tells what the installer said; nothing half installed is taken for whole."""
    with pytest.raises(pytest.skip.Exception, match=r"the installation failed: no bees here"):
        install("test", manifest, python("open('half', 'w'); raise SystemExit('no bees here')"))

    folder = install("test", manifest, python("open('made', 'w')"))
    assert (folder / "made").exists()
    assert not (folder / "half").exists()


def test_a_registry_that_is_too_slow_is_a_skip_too(manifest: Path, tmp_path: Path) -> None:
    """At the deadline the installer is ended with its children, and the skip says so."""
    told = tmp_path / "pid"
    child = "import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', 'import signal; signal.pause()']); "
    slow = python(f"{child}open({str(told)!r}, 'w').write(str(p.pid)); p.wait()")

    with pytest.raises(pytest.skip.Exception, match=r"the installation took too long"):
        install("test", manifest, slow, deadline_s=3 * slowness())

    child_pid = int(told.read_text())
    eventually(lambda: _is_gone(child_pid), within=5, because="the child is gone")


def _is_gone(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True
