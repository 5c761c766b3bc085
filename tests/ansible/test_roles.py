"""What holds for every role and playbook: declared inputs, visible errors, one command line each."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from rbee.contracts.errors import ErrorCode
from tests.support.checkout import ROOT

ROLES = sorted(path.name for path in (ROOT / "roles").iterdir() if path.is_dir())
PLAYBOOKS = sorted((ROOT / "playbooks").glob("*.yml"))
TASK_FILES = sorted([*(ROOT / "roles").glob("*/tasks/*.yml"), *(ROOT / "roles").glob("*/handlers/*.yml")])


def load(path: Path) -> Any:
    """Read one YAML file."""
    return YAML(typ="safe").load(path.read_text(encoding="utf-8"))


def tasks(path: Path) -> Iterator[dict[str, Any]]:
    """Give every task of a file, those inside blocks too."""

    def walk(items: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        for item in items or []:
            yield item
            for part in ("block", "rescue", "always"):
                yield from walk(item.get(part, []))

    return walk(load(path))


def short(path: Path) -> str:
    """Name a file as it stands in the checkout."""
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("role", ROLES)
def test_every_input_is_declared_with_its_default(role: str) -> None:
    """defaults/main.yml and each entry of argument_specs have the same keys, all with the role's prefix."""
    defaults = set(load(ROOT / "roles" / role / "defaults/main.yml"))
    specs = load(ROOT / "roles" / role / "meta/argument_specs.yml")["argument_specs"]

    assert {name for name in defaults if not name.startswith(f"{role}_")} == set()
    assert {entry: set(spec["options"]) for entry, spec in specs.items()} == dict.fromkeys(specs, defaults)


@pytest.mark.parametrize("role", ROLES)
def test_plain_defaults_are_the_same_in_both_places(role: str) -> None:
    """What argument_specs tells as the default is the default."""
    defaults = load(ROOT / "roles" / role / "defaults/main.yml")
    options = load(ROOT / "roles" / role / "meta/argument_specs.yml")["argument_specs"]["main"]["options"]

    assert {name: spec["default"] for name, spec in options.items() if "default" in spec} == {
        name: value for name, value in defaults.items() if "default" in options[name]
    }


@pytest.mark.parametrize("role", ROLES)
def test_every_entry_point_has_its_arguments_checked(role: str) -> None:
    """A file that a playbook enters by tasks_from is an entry of argument_specs."""
    entered = {
        each
        for playbook in PLAYBOOKS
        for each in re.findall(rf"name: {role}\n\s+tasks_from: (\S+)", playbook.read_text(encoding="utf-8"))
    }
    specs = load(ROOT / "roles" / role / "meta/argument_specs.yml")["argument_specs"]

    assert entered <= set(specs)


def test_entry_points_are_named_without_ending() -> None:
    """`tasks_from: x.yml` would skip the check of the arguments without a word."""
    found = [
        short(path) for path in [*PLAYBOOKS, *TASK_FILES] if re.search(r"tasks_from: \S+\.ya?ml", path.read_text())
    ]

    assert found == []


@pytest.mark.parametrize("path", PLAYBOOKS, ids=lambda path: path.stem)
def test_a_playbook_begins_with_its_command(path: Path) -> None:
    """The first comment of a playbook is the one line that runs it."""
    lines = path.read_text(encoding="utf-8").splitlines()

    assert lines[1].startswith(f"# ansible-playbook -i inventory playbooks/{path.name}")


def test_no_task_runs_a_shell() -> None:
    """Commands have arguments, not words for a shell to split."""
    found = [short(path) for path in TASK_FILES if re.search(r"ansible\.builtin\.(shell|raw|script)", path.read_text())]

    assert found == []


def test_only_secrets_are_hidden() -> None:
    """A hidden task carries a key; everything else shows its errors."""
    hidden = [(short(path), task) for path in TASK_FILES for task in tasks(path) if task.get("no_log")]

    assert hidden
    assert [(path, task["name"]) for path, task in hidden if "api_key" not in str(task)] == []


def test_every_task_with_a_key_is_hidden() -> None:
    """A task that names a key cannot print it."""
    keyed = [
        (short(path), task["name"])
        for path in TASK_FILES
        for task in tasks(path)
        if re.search(r"\brbee_\w*api_key\b", str({key: value for key, value in task.items() if key != "block"}))
        and not task.get("no_log")
        and "assert" not in str(task.keys())
    ]

    assert keyed == []


def test_refusals_carry_codes_that_exist() -> None:
    """The code with which a role refuses is one of the error table, so that the keeper can tell what it means."""
    text = "\n".join(
        path.read_text(encoding="utf-8")
        for path in (ROOT / "roles").rglob("*")
        if path.suffix in (".yml", ".py") and path.is_file()
    )
    used = {code for code in re.findall(r"\b([A-Z]{3,}(?:_[A-Z]+)+): ", text) if not code.startswith(("GIT_", "RBEE_"))}

    assert "DISK_FULL" in used
    assert used - set(ErrorCode.__members__) == set()


@pytest.mark.parametrize("path", TASK_FILES, ids=short)
def test_a_part_of_a_role_is_short(path: Path) -> None:
    """A file of tasks can be read at one sight."""
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 100


def test_no_loop_runs_over_what_a_hidden_task_registered() -> None:
    """The items of a loop are printed whole, with the headers that a request was made with."""
    secret = {
        task["register"] for path in TASK_FILES for task in tasks(path) if task.get("no_log") and "register" in task
    }

    assert secret
    assert [
        (short(path), task["name"])
        for path in TASK_FILES
        for task in tasks(path)
        if any(name in str(task.get("loop", "")) for name in secret)
    ] == []
