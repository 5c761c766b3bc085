"""The key of a machine that SSH has never seen: where it belongs, and what a person is shown of it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from rbee.fleet.inventory import Node
from rbee.keeper.fleet import host_keys
from rbee.keeper.fleet.host_keys import Destination, accept, destination, fingerprints, remember
from rbee.keeper.ui.lazy import Flags
from rbee.keeper.ui.output import Output

pytestmark = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="OpenSSH is not on this machine")


@pytest.fixture(name="keys", scope="module")
def _keys(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Give two lines as ssh-keyscan prints them."""
    lines = []
    for kind in ("rsa", "ed25519"):
        file = tmp_path_factory.mktemp("key") / kind
        subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", file], check=True)
        lines.append(f"10.0.0.1 {file.with_suffix('.pub').read_text()}")
    return "".join(lines)


def test_fingerprints_are_those_that_the_machine_prints(keys: str) -> None:
    """Each key is shown by its kind and its SHA-256, the kind that people compare first."""
    shown = fingerprints(keys)

    assert [line.split()[0] for line in shown] == ["ED25519", "RSA"]
    assert all(line.split()[1].startswith("SHA256:") for line in shown)


def test_a_key_is_appended_on_lines_of_its_own(tmp_path: Path, keys: str) -> None:
    """What is in the file stays, also where its last line has no end."""
    file = tmp_path / "ssh" / "known_hosts"
    remember(keys, file)
    file.write_text("old ssh-rsa AAAA")

    remember(keys, file)

    assert file.read_text() == f"old ssh-rsa AAAA\n{keys}"


def test_ssh_itself_says_where_it_goes_and_where_it_looks(tmp_path: Path) -> None:
    """Port and options of the inventory count, as they do for Ansible."""
    options = {"ansible_ssh_common_args": f"-o UserKnownHostsFile={tmp_path}/known -o HostName=10.0.0.9"}

    assert destination(Node("h1", host="h1.lan", port=2222, variables=options)) == Destination(
        "10.0.0.9", 2222, tmp_path / "known"
    )


@pytest.mark.parametrize("answer", [True, False])
def test_only_what_a_person_accepts_is_written(
    tmp_path: Path, keys: str, monkeypatch: pytest.MonkeyPatch, *, answer: bool
) -> None:
    """The question shows machine and fingerprints; no is no."""
    asked: list[str] = []
    out = Output(Flags())
    monkeypatch.setattr(host_keys, "scan", lambda _at: keys)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)

    def ask(lines: list[str], question: str) -> bool:
        asked.extend([*lines, question])
        return answer

    monkeypatch.setattr(out, "ask", ask)
    node = Node("h1", host="10.0.0.1", variables={"ansible_ssh_common_args": f"-o UserKnownHostsFile={tmp_path}/known"})

    assert accept(out, [node]) is answer

    assert (tmp_path / "known").exists() is answer
    assert "h1 (10.0.0.1 port 22)" in asked[0]
    assert fingerprints(keys)[0] in asked[1]


def test_nobody_is_asked_without_a_terminal(keys: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A script gets the error with its next step."""
    monkeypatch.setattr(host_keys, "scan", lambda _at: keys)

    assert not accept(Output(Flags()), [Node("h1", host="10.0.0.1")])
