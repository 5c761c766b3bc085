"""What the role that clones a release accepts as signed, with real keys and a real repository."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.checkout import ROOT

ANSIBLE = Path(sys.executable).parent / "ansible-playbook"
pytestmark = pytest.mark.skipif(shutil.which("gpg") is None, reason="GnuPG is not on this machine")


@dataclass
class Source:
    """A repository, and the keyring of the machine that clones it."""

    folder: Path
    environment: dict[str, str]

    def run(self, *command: str) -> str:
        return subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, check=True
        ).stdout

    def key(self, name: str) -> str:
        """Make a key without a passphrase; return its fingerprint."""
        self.run("gpg", "--batch", "--passphrase", "", "--quick-generate-key", name, "ed25519", "sign", "never")
        listed = self.run("gpg", "--with-colons", "--list-keys", name).splitlines()
        return next(line.split(":")[9] for line in listed if line.startswith("fpr:"))

    def commit(self, *options: str) -> str:
        self.run("git", "commit", "-q", "--allow-empty", "-m", "A release", *options)
        return self.run("git", "rev-parse", "HEAD").strip()

    def clone(self, commit: str, signers: list[str], into: Path) -> subprocess.CompletedProcess[str]:
        """Clone *commit* as a machine that demands a signature of one of *signers*, of any known key where empty."""
        extra = {
            "rbee_runtime_repo_url": str(self.folder),
            "rbee_runtime_checkout_path": str(into),
            "rbee_runtime_git_version": commit,
            "rbee_runtime_git_verify": True,
            "rbee_runtime_git_signers": signers,
            "rbee_runtime_build_on": "controller",
        }
        command = [str(ANSIBLE), "-i", "localhost,", str(ROOT / "tests/ansible/source.yml"), "-e", json.dumps(extra)]
        return subprocess.run(command, cwd=ROOT, env=self.environment, capture_output=True, text=True, check=False)


@pytest.fixture(name="source")
def _source(tmp_path: Path) -> Iterator[Source]:
    keyring = tmp_path / "gnupg"
    keyring.mkdir(mode=0o700)
    folder = tmp_path / "repository"
    folder.mkdir()
    identity = {f"GIT_{who}_{what}": "rbee" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    source = Source(folder, {**os.environ, **identity, "GNUPGHOME": str(keyring)})
    source.run("git", "init", "-q")
    yield source
    source.run("gpgconf", "--kill", "all")


def test_a_release_is_installed_if_one_of_the_named_keys_signed_it(source: Source, tmp_path: Path) -> None:
    """A signature of a known key is enough where no signer is named; else it must be one of the named ones."""
    ours, theirs = source.key("ours"), source.key("theirs")
    unsigned = source.commit()
    signed = source.commit(f"-S{ours}")

    accepted = source.clone(signed, [], tmp_path / "any")
    named = source.clone(signed, [ours], tmp_path / "named")
    other = source.clone(signed, [theirs], tmp_path / "other")
    refused = source.clone(unsigned, [], tmp_path / "unsigned")

    for run in (accepted, named):
        assert run.returncode == 0, run.stdout + run.stderr
    assert (tmp_path / "named" / ".git").is_dir()
    for run in (other, refused):
        assert run.returncode != 0
        assert "REPOSITORY_UNAVAILABLE" in run.stdout
