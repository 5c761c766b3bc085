"""How keys are kept."""

from __future__ import annotations

import stat
import threading
from pathlib import Path

import pytest

from rbee.config.credentials import api_key_file, ensure_api_key, find_api_key, new_key, read_key, store_key
from rbee.config.paths import Paths
from rbee.errors import ConfigError
from rbee.observe.redaction import MASK, Redactor


def test_a_key_never_looks_like_an_option() -> None:
    """A new key begins with a letter or digit, so that every command takes it as a value."""
    assert all(new_key()[0].isalnum() for _ in range(500))


def test_a_key_is_made_once_with_mode_0600(tmp_path: Path) -> None:
    """The first use makes a key that only its owner can read; later uses find the same."""
    paths = Paths(tmp_path / "home")

    key = ensure_api_key(paths, {})

    assert stat.S_IMODE(api_key_file(paths).stat().st_mode) == 0o600
    assert stat.S_IMODE(paths.secrets.stat().st_mode) == 0o700
    assert ensure_api_key(paths, {}) == key
    assert len(key) >= 32


def test_two_first_uses_at_once_agree(tmp_path: Path) -> None:
    """Whoever loses the race takes the winner's key."""
    paths = Paths(tmp_path)
    keys: list[str] = []
    threads = [threading.Thread(target=lambda: keys.append(ensure_api_key(paths, {}))) for _ in range(8)]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(keys) == 8
    assert len(set(keys)) == 1


def test_the_environment_comes_before_the_home(tmp_path: Path) -> None:
    """RBEE_API_KEY wins, then the credentials directory, then the file that is named, then the home."""
    paths = Paths(tmp_path)
    ensure_api_key(paths, {})
    folder = tmp_path / "credentials"
    folder.mkdir()
    (folder / "api-key").write_text("from-systemd\n")
    named = tmp_path / "named"
    store_key(named, "from-file", replace=True)

    assert find_api_key(paths, {"RBEE_API_KEY": "from-env", "CREDENTIALS_DIRECTORY": str(folder)}) == "from-env"
    assert find_api_key(paths, {"CREDENTIALS_DIRECTORY": str(folder)}, named) == "from-systemd"
    assert find_api_key(paths, {}, named) == "from-file"


@pytest.mark.parametrize(("mode", "text", "why"), [(0o644, "key", "chmod 600"), (0o600, "", "empty")])
def test_a_doubtful_key_file_is_refused(tmp_path: Path, mode: int, text: str, why: str) -> None:
    """A key that others can read, or an empty file, is refused with what to do."""
    path = tmp_path / "key"
    path.write_text(text)
    path.chmod(mode)

    with pytest.raises(ConfigError, match=why):
        read_key(path)


@pytest.mark.parametrize(
    "text",
    [
        "the key is my-secret-key-1",
        "Authorization: Bearer abcdef",
        "token hf_abcdefghijkl",
        "https://user:passw@host/x",
    ],
)
def test_secrets_are_masked(text: str) -> None:
    """Known secrets and whatever has the shape of one are masked."""
    cleaned = Redactor(["my-secret-key-1"]).clean(text)

    assert MASK in cleaned
    for secret in ("my-secret-key-1", "abcdef", "passw"):
        assert secret not in cleaned


def test_ordinary_words_are_left_alone() -> None:
    """Text without secrets is unchanged."""
    assert Redactor(["abc"]).clean("worker abc listens on http://host:80/") == "worker abc listens on http://host:80/"
