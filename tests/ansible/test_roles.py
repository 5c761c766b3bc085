"""What holds for every role and playbook: declared inputs, visible errors, one command line each."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from ruamel.yaml import YAML

from rbee import __version__
from rbee.contracts.devices import Backend
from rbee.contracts.engine import CacheName
from rbee.contracts.errors import ErrorCode
from rbee.contracts.served import ServedModel, Where
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


def test_a_served_model_has_the_keys_of_its_declaration() -> None:
    """The role knows each key of a declared model, and takes groups of the inventory besides nodes."""
    options = load(ROOT / "roles/rbee_queen/meta/argument_specs.yml")["argument_specs"]["main"]["options"]
    keys = options["rbee_queen_served_models"]["options"]

    assert set(keys) == set(ServedModel.model_fields)
    assert set(keys["where"]["options"]) == {*Where.model_fields, "groups"}
    assert keys["where"]["options"]["backend"]["choices"] == list(Backend)
    assert keys["cache_type"]["choices"] == list(get_args(CacheName))


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


def ansible(*command: str, cwd: Path, **environment: str) -> str:
    """Run a program of Ansible in a folder that is none of ours, with no settings but these; return what it prints."""
    env = {"PATH": os.environ["PATH"], "HOME": str(cwd), "LC_ALL": "C.UTF-8", **environment}
    program = str(Path(sys.executable).parent / command[0])
    run = subprocess.run([program, *command[1:]], cwd=cwd, env=env, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


def test_playbooks_find_their_roles_from_any_folder(tmp_path: Path) -> None:
    """A playbook that is run from another folder, where no ansible.cfg tells it, finds roles and modules."""
    (tmp_path / "hosts").write_text("[rbee_hives]\nh1\n[rbee_queen]\nh1\n")

    for playbook in ("site", "deploy-models", "remove-hive"):
        ansible(
            *("ansible-playbook", "--syntax-check", "-i", "hosts", str(ROOT / "playbooks" / f"{playbook}.yml")),
            cwd=tmp_path,
        )


def test_the_collection_is_built_and_installed(tmp_path: Path) -> None:
    """The file that ansible-galaxy builds has our version, all modules and what prepares packages, and its playbooks
    run once it is installed, site by its name; what is only for us is not in it.
    """
    (tmp_path / "hosts").write_text("[rbee_hives]\nh1\n[rbee_queen]\nh1\n")

    ansible("ansible-galaxy", "collection", "build", str(ROOT), "--output-path", str(tmp_path), cwd=tmp_path)
    ansible("ansible-galaxy", "collection", "install", f"rbee-fleet-{__version__}.tar.gz", "-p", "c", cwd=tmp_path)
    installed = tmp_path / "c" / "ansible_collections" / "rbee" / "fleet"
    here = {"ANSIBLE_COLLECTIONS_PATH": str(tmp_path / "c")}
    for playbook in ("rbee.fleet.site", str(installed / "playbooks" / "remove-hive.yml")):
        ansible("ansible-playbook", "--syntax-check", "-i", "hosts", playbook, cwd=tmp_path, **here)

    modules = {path.name for path in (ROOT / "roles").glob("*/library/*.py")}
    assert {path.name for path in (installed / "plugins/modules").iterdir() if path.is_file()} == modules
    assert (installed / "rbee/fleet/wheelhouse.py").is_file()
    assert not {"tests", "bench", "tools", ".git"} & {path.name for path in installed.iterdir()}
