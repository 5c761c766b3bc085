"""What a daemon writes: its folders and its log, readable by nobody else, whatever the umask."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rbee.config.paths import Paths
from rbee.observe.log_file import own_log_file
from tests.support.checkout import ROOT

WRITER = """
import logging, os, sys
from pathlib import Path
from rbee.config.paths import Paths
from rbee.daemonkit.own_files import configure_log, make_folders
home, lines = Path(sys.argv[1]), int(sys.argv[2])
paths = Paths(home)
make_folders(paths, (paths.logs,))
configure_log("bee", paths.logs / "bee.log", level="info", max_mb=1, secrets=("a-key-of-the-daemon",))
for number in range(lines):
    logging.getLogger("bee").info("line %d %s", number, "x" * 1000)
os.write(2, b"from native code\\n")
print("from Python", flush=True)
"""


def write(home: Path, lines: int, environ: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a process that logs, with a umask that forbids nothing."""
    return subprocess.run(
        [sys.executable, "-c", WRITER, str(home), str(lines)],
        cwd=ROOT,
        env=os.environ | (environ or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        umask=0,
        timeout=30,
        check=False,
    )


def mode(path: Path) -> str:
    """Return the permissions of a file."""
    return f"{stat.S_IMODE(path.stat().st_mode):o}"


def test_a_daemon_writes_its_own_log(tmp_path: Path) -> None:
    """The named file gets every line, also of native code, and nothing is printed besides; its mode is 0640."""
    log = tmp_path / "home" / "logs" / "bee.log"

    done = write(tmp_path / "home", 3, {"RBEE_LOG_FILE": str(log)})

    assert (done.returncode, done.stdout) == (0, "")
    assert [line in log.read_text() for line in ("line 2", "from native code", "from Python")] == [True] * 3
    assert (mode(log), mode(tmp_path / "home"), mode(log.parent)) == ("640", "700", "700")


def test_a_log_is_rotated_by_the_line_that_makes_it_too_large(tmp_path: Path) -> None:
    """No line is lost, and neither file is larger than the limit and a line."""
    log = tmp_path / "logs" / "bee.log"

    write(tmp_path, 1500, {"RBEE_LOG_FILE": str(log)})

    earlier = log.with_name("bee.log.1")
    assert max(log.stat().st_size, earlier.stat().st_size) < 1_002_000
    text = earlier.read_text() + log.read_text()
    assert [f"line {number} " in text for number in range(1500)] == [True] * 1500
    assert "from native code" in log.read_text()
    assert mode(log) == "640"


def test_a_link_in_place_of_the_log_is_not_followed(tmp_path: Path) -> None:
    """Where the log should be is a link to another file: the daemon says so, and that file stays as it was."""
    other = tmp_path / "shadow"
    other.write_text("secret")
    log = tmp_path / "home" / "logs" / "bee.log"
    log.parent.mkdir(parents=True)
    log.symlink_to(other)

    done = write(tmp_path / "home", 3, {"RBEE_LOG_FILE": str(log)})

    assert done.returncode == 1
    assert "bee.log cannot be used" in done.stdout
    assert other.read_text() == "secret"


def test_a_daemon_takes_over_the_file_that_it_prints_to(tmp_path: Path) -> None:
    """A child whose owner opened its log rotates it itself, and one with another standard error leaves it alone."""
    log = tmp_path / "bee.log"
    with log.open("ab") as file:
        code = "import os, sys; from pathlib import Path; from rbee.observe.log_file import own_log_file as own; "
        code += "sys.exit(0 if own(Path(sys.argv[1]), os.environ) else 3)"
        taken = subprocess.run([sys.executable, "-c", code, str(log)], cwd=ROOT, stderr=file, timeout=30, check=False)

    assert taken.returncode == 0
    assert own_log_file(log, {}) is None


def test_children_do_not_inherit_the_log(tmp_path: Path) -> None:
    """The variable is taken out of the environment."""
    environ = {"RBEE_LOG_FILE": str(tmp_path / "x.log")}

    assert own_log_file(tmp_path / "y.log", environ) == tmp_path / "x.log"
    assert environ == {}


@pytest.fixture(name="_open_umask")
def _set_open_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.usefixtures("_open_umask")
def test_a_home_that_others_can_read_is_closed(tmp_path: Path) -> None:
    """A folder of ours that was there already gets mode 0700."""
    home = tmp_path / "home"
    home.mkdir(mode=0o755)

    Paths(home).make(home)

    assert mode(home) == "700"


def test_the_home_of_a_user_and_a_shared_folder_keep_their_modes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What holds more than our files is left as it is."""
    monkeypatch.setenv("HOME", str(tmp_path))
    tmp_path.chmod(0o755)
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)

    Paths(tmp_path).make(tmp_path)
    Paths(shared).make(shared)

    assert (mode(tmp_path), mode(shared)) == ("755", "1777")
