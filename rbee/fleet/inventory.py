"""Read and change the inventory, which decides which machines exist; people and the keeper both write it.

Reading resolves what the commands need (address, user, key, repository) the way Ansible does; writing changes single
lines under a lock, so that comments and order survive and two keepers at once lose nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from rbee.config.atomic_write import atomic_write
from rbee.config.file_lock import file_lock
from rbee.config.paths import storage_error
from rbee.contracts.errors import ErrorCode
from rbee.errors import ConfigError, RbeeError
from rbee.fleet.credentials import NODE_NAME
from rbee.fleet.layout import HIVES, Layout
from rbee.fleet.yaml_edit import YamlDocument

# A node's fields and the variables that carry them.
VARIABLES: Final = {
    "host": "ansible_host",
    "port": "ansible_port",
    "user": "ansible_user",
    "key_path": "ansible_ssh_private_key_file",
    "repo_url": "rbee_repo_url",
    "repo_branch": "rbee_repo_branch",
    "install_path": "rbee_install_path",
    "hive_port": "rbee_hive_port",
}
_NEW = """\
---
# The machines of rbee. rbee-keeper writes here, and so may you: comments and order are kept.
# inventory/README.md of rbee explains every variable.
all:
  children:
    rbee_queen:
      hosts:
    rbee_hives:
      hosts:
"""
_YAML_ENDINGS = (".yml", ".yaml")


@dataclass(frozen=True, slots=True)
class Node:
    """A machine of the inventory. None means that the inventory does not say it."""

    name: str
    host: str | None = None
    port: int | None = None
    user: str | None = None
    key_path: str | None = None
    repo_url: str | None = None
    repo_branch: str | None = None
    install_path: str | None = None
    hive_port: int | None = None
    groups: tuple[str, ...] = ()
    line: int | None = None
    variables: Mapping[str, Any] = field(default_factory=dict, compare=False)

    @property
    def address(self) -> str:
        """The address for SSH."""
        return self.host or self.name


class Inventory:
    """An inventory folder, or a single hosts file. It need not exist before the first node is put into it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if path.is_file() or path.suffix in _YAML_ENDINGS:
            self.folder, self.file = path.parent, path
        else:
            self.folder = path
            existing = [path / name for name in ("hosts.yml", "hosts.yaml", "inventory.yml")]
            self.file = next((file for file in existing if file.is_file()), existing[0])

    @property
    def exists(self) -> bool:
        """Return whether there is anything yet."""
        return self.file.is_file()

    def nodes(self, group: str | None = HIVES) -> list[Node]:
        """List the machines of a group in their order in the file (None: of all). Raises ConfigError with the line."""
        if not self.exists:
            return []
        layout = Layout(self.read())
        found = []
        for name, line in layout.lines.items():
            groups = tuple(layout.groups_of(name))
            if group is None or group in groups:
                found.append(self._resolve(name, line, groups, layout))
        return found

    def node(self, name: str) -> Node | None:
        """Find a machine by its name; None if there is none."""
        return next((node for node in self.nodes(None) if node.name == name), None)

    def require(self, name: str) -> Node:
        """Find a machine by its name. Raises RbeeError NODE_NOT_FOUND."""
        node = self.node(name)
        if node is None:
            known = ", ".join(each.name for each in self.nodes(None)) or "none"
            raise RbeeError(
                ErrorCode.NODE_NOT_FOUND,
                f"The inventory {self.file} has no node {name!r}; it has: {known}.",
                details={"node": name},
            )
        return node

    def put(self, node: Node, *, replace: bool) -> None:
        """Add a machine to the hives, or change one that is there; fields of *node* that are None stay as they are.

        Raises:
            RbeeError: NODE_EXISTS without *replace*; a name that cannot be a node's.
            ConfigError: the file cannot be changed by a program at that place; nothing is written.
        """
        if not NODE_NAME.fullmatch(node.name):
            raise RbeeError(
                ErrorCode.INVALID_REQUEST,
                f"{node.name!r} cannot be the name of a node.",
                hint="Use letters, digits, dots, dashes and underscores; the first and the last a letter or digit.",
                param="node",
            )
        with self._edit() as text:
            layout = Layout(text)
            if node.name in layout.lines and not replace:
                raise RbeeError(
                    ErrorCode.NODE_EXISTS,
                    f"{node.name} is in the inventory already ({self.file}:{layout.lines[node.name]}).",
                    details={"node": node.name},
                )
            home = layout.home_of(node.name) or (*layout.path_of(HIVES), "hosts", node.name)
            text.put(None, *home)
            if HIVES not in layout.groups_of(node.name) and home[-3:-1] != (HIVES, "hosts"):
                text.put(None, *layout.path_of(HIVES), "hosts", node.name)
            values = {VARIABLES[name]: getattr(node, name) for name in VARIABLES}
            for variable, value in (values | dict(node.variables)).items():
                if value is not None:
                    text.put(value, *home, variable)

    def remove(self, name: str) -> bool:
        """Remove a machine from every group; return whether it was there."""
        if not self.exists:
            return False
        with self._edit() as text:
            paths = Layout(text).paths_of(name)
            for path in paths:
                text.remove(*path)
        return bool(paths)

    def read(self) -> YamlDocument:
        """Parse the hosts file. Raises ConfigError with the line."""
        return load(self.file)

    def _resolve(self, name: str, line: int, groups: tuple[str, ...], layout: Layout) -> Node:
        merged: dict[str, Any] = {}
        for source in (
            layout.variables("all"),
            *(self._vars_files("group_vars", "all")),
            *(layout.variables(group) for group in groups),
            *(each for group in groups for each in self._vars_files("group_vars", group)),
            layout.host_variables(name),
            *(self._vars_files("host_vars", name)),
        ):
            merged |= source
        # A template is Ansible's to resolve.
        known = {key: value for key, value in merged.items() if not (isinstance(value, str) and "{{" in value)}
        fields: dict[str, Any] = {key: known.get(variable) for key, variable in VARIABLES.items()}
        for number in ("port", "hive_port"):
            value = fields[number]
            fields[number] = int(value) if isinstance(value, int | str) and str(value).isdigit() else None
        texts = {key: None if value is None else str(value) for key, value in fields.items() if "port" not in key}
        return Node(name=name, groups=groups, line=line, variables=merged, **(fields | texts))

    def _vars_files(self, kind: str, name: str) -> Iterator[dict[str, Any]]:
        for file in vars_files(self.folder / kind, name):
            found = load(file).get()
            yield found if isinstance(found, dict) else {}

    @contextmanager
    def _edit(self) -> Iterator[YamlDocument]:
        """Yield the document to change under a lock, and write it whole or, after an error, not at all."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise storage_error(error, self.folder) from error
        with file_lock(self.folder / f".{self.file.name}.lock"):
            text = self.read() if self.exists else YamlDocument(_NEW, str(self.file))
            before = text.text if self.exists else None
            yield text
            if text.text != before:
                mode = self.file.stat().st_mode & 0o777 if self.exists else 0o644
                atomic_write(self.file, text.text, mode=mode)


def load(file: Path) -> YamlDocument:
    """Parse one YAML file; an encrypted one as empty. Raises ConfigError."""
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot be read: {error}", path=str(file)) from error
    return YamlDocument("" if text.startswith("$ANSIBLE_VAULT") else text, str(file))


def vars_files(folder: Path, name: str) -> list[Path]:
    """List the files in which Ansible looks for the variables of a group or host."""
    files = [folder / f"{name}{ending}" for ending in ("", *_YAML_ENDINGS) if (folder / f"{name}{ending}").is_file()]
    inside = folder / name
    if inside.is_dir():
        files += sorted(
            file for file in inside.rglob("*") if file.suffix in _YAML_ENDINGS and not file.name.startswith(".")
        )
    return files
