"""Each part imports only what its own extra installs, so that no machine carries more than it runs."""

from __future__ import annotations

import re
import sys
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from tests.support.checkout import ROOT, imports, project, python_files

# Names that come with a declared one and are part of its face.
COMES_WITH = {"httpx2": "huggingface-hub", "pydantic-core": "pydantic"}
# Declared without an import to be seen: uvicorn takes the first three when they are there, and the worker looks for
# llama_cpp's library without running its package.
USED_UNSEEN = {"httptools", "llama-cpp-python", "uvloop", "websockets"}
EXTRAS = {
    "keeper": [],
    "fleet": ["fleet"],
    "queen": ["queen"],
    "hive": ["hive"],
    "worker": ["worker"],
}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", re.split(r"[\[<>=~!; ]", name)[0]).lower()


def declared(*extras: str) -> set[str]:
    """The distributions of the base and of some extras."""
    table = project()["project"]
    listed = [*table["dependencies"], *(line for extra in extras for line in table["optional-dependencies"][extra])]
    return {normal(line) for line in listed}


@cache
def owners() -> dict[str, str]:
    """The distribution of every module that is installed."""
    return {module: normal(distributions[0]) for module, distributions in packages_distributions().items()}


def foreign(path: Path) -> set[str]:
    """The distributions that a file imports."""
    tops = {name.split(".")[0] for name in imports(path)} - set(sys.stdlib_module_names) - {"rbee", "__future__"}
    found = {owners().get(top, top) for top in tops}
    return {COMES_WITH.get(name, name) for name in found}


def allowed(path: Path) -> set[str]:
    part = path.relative_to(ROOT / "rbee").parts[0]
    if part == "daemonkit":
        return declared("queen") & declared("hive") & declared("worker")
    return declared(*EXTRAS.get(part, []))


def test_a_module_imports_what_its_extra_declares() -> None:
    """A module's foreign imports are all in the base dependencies or in the extra of its part."""
    missing = {str(path.relative_to(ROOT)): foreign(path) - allowed(path) for path in python_files("rbee")}

    assert {path: names for path, names in missing.items() if names} == {}


@pytest.mark.parametrize("extra", [None, "queen", "hive", "worker"])
def test_nothing_is_declared_in_vain(extra: str | None) -> None:
    """Every declared distribution is imported by a module that its extra serves."""
    parts = [extra, "daemonkit"] if extra else [path.name for path in (ROOT / "rbee").iterdir() if path.is_dir()]
    used = {name for path in python_files(*(f"rbee/{part}" for part in parts)) for name in foreign(path)}
    own = declared(extra) - declared() if extra else declared()

    assert own - used - USED_UNSEEN == set()
