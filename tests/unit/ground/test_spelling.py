"""A misspelt name is answered with the one that was meant, or with none."""

from __future__ import annotations

import pytest

from rbee.fleet.assets import Assets
from rbee.fleet.file_check import known_variables
from rbee.spelling import closest


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("rbee_hive_prot", "rbee_hive_port"),
        ("rbee_modles", "rbee_models"),
        ("rbee_hive_drain_s", "rbee_queen_drain_timeout_s"),
        ("rbee_hive_timeout_idle", "rbee_hive_idle_timeout_s"),
        ("rbee_path_state", "rbee_state_path"),
        ("rbee_state_dir", "rbee_state_path"),
        ("rbee_hive_max_context", "rbee_hive_context_length"),
        ("rbee_branch", "rbee_repo_branch"),
        ("rbee_hive_reserve_disk_gb", "rbee_hive_disk_reserve_gb"),
        ("rbee_slots", "rbee_hive_slots"),
        ("rbee_hivesettings", "rbee_hive_settings"),
        ("rbee_bananas", None),
        ("rbee_hive_foo", None),
        ("", None),
        ("_", None),
    ],
)
def test_words_are_compared_in_any_order(name: str, meant: str | None) -> None:
    """A word that few names have tells what was meant; one that all have tells nothing."""
    assert closest(name, known_variables(Assets.find())) == meant


@pytest.mark.parametrize("name", ["slotz", "slot", "solts"])
def test_a_single_word_is_compared_by_its_letters(name: str) -> None:
    """Names of one word are near each other where their letters are."""
    assert closest(name, ["port", "slots", "context_length"]) == "slots"
    assert closest(name, []) is None


def test_one_letter_is_a_slip() -> None:
    """A name that differs in one letter is meant, though another one has all of its words."""
    assert closest("queen_ulr", ["queen", "queen_url", "inventory"]) == "queen_url"
