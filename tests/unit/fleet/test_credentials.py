"""The keys of the hives on the controller."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rbee.config.paths import Paths
from rbee.errors import ConfigError, RbeeError
from rbee.fleet.credentials import delete_hive_key, ensure_hive_key, hive_key, hive_key_file


@pytest.fixture(name="paths")
def _paths(tmp_path: Path) -> Paths:
    return Paths(tmp_path)


def test_a_key_is_made_once_and_kept_to_oneself(paths: Paths) -> None:
    """The first use makes a key of mode 0600 in a folder of mode 0700; later uses find the same one."""
    assert hive_key(paths, "h1") is None

    key = ensure_hive_key(paths, "h1")

    file = hive_key_file(paths, "h1")
    assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert ensure_hive_key(paths, "h1") == hive_key(paths, "h1") == key
    assert ensure_hive_key(paths, "h2") != key


def test_two_at_once_agree_on_one_key(paths: Paths) -> None:
    """Whoever comes second takes the key of the first."""
    with ThreadPoolExecutor(8) as pool:
        keys = set(pool.map(lambda _: ensure_hive_key(paths, "h1"), range(16)))

    assert len(keys) == 1


def test_a_key_that_others_can_read_is_refused(paths: Paths) -> None:
    """A key file of mode 0644 is not used."""
    ensure_hive_key(paths, "h1")
    hive_key_file(paths, "h1").chmod(0o644)

    with pytest.raises(ConfigError, match="chmod 600"):
        hive_key(paths, "h1")


def test_a_forgotten_key_is_gone(paths: Paths) -> None:
    """Removing a node removes its key, and says whether there was one."""
    ensure_hive_key(paths, "h1")

    assert delete_hive_key(paths, "h1")
    assert not delete_hive_key(paths, "h1")


@pytest.mark.parametrize("name", ["../api-key", "a/b", "", ".."])
def test_a_key_file_stays_in_its_folder(paths: Paths, name: str) -> None:
    """A name that would lead elsewhere is refused."""
    with pytest.raises(RbeeError):
        hive_key_file(paths, name)
