"""What must never be in the repository, and what its files promise each other."""

from __future__ import annotations

import importlib
import pkgutil
import re

import pytest

import rbee
from tests.support.checkout import ROOT, tracked_files
from tools.constraints import pinned

# Written in pieces, so that this file passes its own test.
HOSTS = [".".join(parts) for parts in (("pypi", "org"), ("pythonhosted", "org"), ("npmjs", "org"), ("crates", "io"))]
PLACES = ["/" + place + "/" for place in ("work/main", "work/shared", "root/scratch")]


def test_no_registry_and_no_private_path_is_named() -> None:
    """No tracked file names a package registry's host or a path of the machine that it was written on."""
    words = re.compile("|".join(map(re.escape, [*HOSTS, *PLACES])))
    found = []
    for path in tracked_files():
        text = path.read_bytes().decode("utf-8", errors="ignore")
        found += [f"{path.relative_to(ROOT)}: {match[0]}" for match in words.finditer(text)]

    assert found == []


def test_every_pinned_package_has_a_hash() -> None:
    """The constraints are names, versions and sha256 hashes, and nothing else."""
    found = pinned()

    assert "llama-cpp-python" in found
    for pin in found.values():
        assert pin.version
        assert pin.hashes
        assert "//" not in pin.lines


def test_exports_are_sorted_and_exist() -> None:
    """A module that lists its public names lists them sorted, once, and has each."""
    for info in pkgutil.walk_packages(rbee.__path__, "rbee."):
        if info.name.endswith("__main__"):
            continue
        module = importlib.import_module(info.name)
        names = getattr(module, "__all__", None)
        if names is None:
            continue
        assert list(names) == sorted(set(names)), info.name
        assert [name for name in names if not hasattr(module, name)] == [], info.name


@pytest.mark.parametrize("name", ["rbee-keeper", "rbee", "queen-rbee", "rbee-hive", "llm-worker-rbee"])
def test_every_program_can_be_loaded(name: str) -> None:
    """Each program that is installed has a main function behind it."""
    from importlib.metadata import entry_points

    (program,) = entry_points(group="console_scripts", name=name)

    assert callable(program.load())


def test_every_promise_of_the_security_table_names_tests_that_exist() -> None:
    """Each threat in SECURITY.md has a test file or a behaviour that holds it, and these are there."""
    section = (ROOT / "SECURITY.md").read_text().partition("## What is promised")[2]
    rows = [line.split("|") for line in section.splitlines() if line.startswith("| ") and "`tests/" in line]
    behaviours = (ROOT / "features" / "README.md").read_text()

    assert len(rows) >= 19
    for row in rows:
        assert len(row) == 6, row
        named = re.findall(r"`(tests/[a-z_/]+\.py)`", row[3])
        assert named, row[1]
        assert [path for path in named if not (ROOT / path).is_file()] == []
        assert all(f"| {word} |" in behaviours for word in re.findall(r"\bB\d+\b", row[3]))
