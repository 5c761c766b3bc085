"""Read and change the inventory, which decides which machines exist; people and the keeper both write it.

Reading asks Ansible; writing changes single lines of a YAML file under a lock, so that comments and order survive and
two keepers at once lose nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from rbee.config.atomic_write import atomic_write
from rbee.config.file_lock import file_lock
from rbee.config.paths import Paths, storage_error
from rbee.contracts.errors import ErrorCode
from rbee.errors import ConfigError, RbeeError
from rbee.fleet.ansible_inventory import Host, read_hosts
from rbee.fleet.credentials import require_node_name
from rbee.fleet.layout import HIVES, Layout
from rbee.fleet.yaml_edit import YamlDocument

# A node's fields and the variables that carry them.
VARIABLES: Final[Mapping[str, str]] = {
    "host": "ansible_host",
    "port": "ansible_port",
    "user": "ansible_user",
    "key_path": "ansible_ssh_private_key_file",
    "repo_url": "rbee_repo_url",
    "repo_branch": "rbee_repo_branch",
    "install_path": "rbee_install_path",
    "hive_port": "rbee_hive_port",
}
# Where Ansible's ssh connection takes several names, the last one that is set counts.
_NAMES: Final[Mapping[str, tuple[str, ...]]] = {name: (variable,) for name, variable in VARIABLES.items()} | {
    "host": ("ansible_host", "ansible_ssh_host"),
    "port": ("ansible_port", "ansible_ssh_port"),
    "user": ("ansible_user", "ansible_ssh_user"),
    "key_path": ("ansible_private_key_file", "ansible_ssh_private_key_file"),
}
_RESOLVED: Final = tuple(variable for variables in _NAMES.values() for variable in variables)
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
_VARIABLE_ENDINGS = (*_YAML_ENDINGS, ".json", "")
# Ansible's own list, as far as people keep such files there (INVENTORY_IGNORE_EXTS).
_NO_SOURCES = (".md", ".txt", ".rst", ".orig", ".cfg", ".retry", ".bak", ".pyc", ".swp", ".lock")


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
    variables: Mapping[str, Any] = field(default_factory=dict, compare=False)

    @property
    def address(self) -> str:
        """The address for SSH."""
        return self.host or self.name


class Inventory:
    """An inventory as Ansible takes it: a file or a folder. It need not exist before the first node is put into it.

    Args:
        path: the file or folder.
        paths: where what Ansible said is kept until a file changes.

    `file` is the hosts file that edits are made in.
    """

    def __init__(self, path: Path, paths: Paths) -> None:
        self.path = path
        self._paths = paths
        if path.is_file() or path.suffix in _YAML_ENDINGS:
            self.folder, self.file = path.parent, path
        else:
            self.folder = path
            existing = [path / name for name in ("hosts.yml", "hosts.yaml", "inventory.yml")]
            self.file = next((file for file in existing if file.is_file()), existing[0])

    @property
    def exists(self) -> bool:
        """Return whether there is anything yet."""
        return self.path.is_file() or bool(self.hosts_files())

    def hosts_files(self) -> list[Path]:
        """List the sources of a folder, as Ansible takes them; without them, a folder of variables has no machines."""
        if not self.path.is_dir():
            return [self.path] if self.path.is_file() else []
        files = sorted(path for path in self.path.iterdir() if path.is_file() and not path.name.startswith("."))
        return [path for path in files if path.suffix not in _NO_SOURCES]

    def variable_files(self) -> list[Path]:
        """List the files of variables beside the hosts, of groups and of single machines, as Ansible takes them."""
        folders = [self.folder / kind for kind in ("group_vars", "host_vars")]
        files = [file for folder in folders if folder.is_dir() for file in sorted(folder.rglob("*")) if file.is_file()]
        return [file for file in files if file.suffix in _VARIABLE_ENDINGS and not file.name.startswith(".")]

    def nodes(self, group: str | None = HIVES) -> list[Node]:
        """List the machines of a group in Ansible's order (None: of all).

        Raises ConfigError with Ansible's reason where it refuses the inventory.
        """
        if not self.exists:
            return []
        hosts = read_hosts(self.path, self._paths, _RESOLVED).values()
        return [_node(host) for host in hosts if group is None or group in host.groups]

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
                f"The inventory {self.path} has no node {name!r}; it has: {known}.",
                details={"node": name},
            )
        return node

    def line_of(self, name: str) -> int | None:
        """Return the line (from 1) on which a machine stands in the hosts file; None if it does not stand there."""
        return Layout(self._read()).lines.get(name) if self.file.is_file() else None

    def put(self, node: Node, *, replace: bool) -> None:
        """Add a machine to the hives, or change one that is there; fields of *node* that are None stay as they are.

        Raises:
            RbeeError: NODE_EXISTS without *replace*; a name that cannot be a node's.
            ConfigError: the file cannot be changed by a program at that place; nothing is written.
        """
        require_node_name(node.name)
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
            set_there = {entry.name for entry in text.entries(*home)}
            values = {
                next((key for key in reversed(_NAMES[name]) if key in set_there), variable): getattr(node, name)
                for name, variable in VARIABLES.items()
            }
            for variable, value in (values | dict(node.variables)).items():
                if value is not None:
                    text.put(value, *home, variable)

    def remove(self, name: str) -> bool:
        """Remove a machine from every group; return whether it was there.

        Raises ConfigError for one that stands elsewhere: in a range, or in another source.
        """
        if not self.exists or self.node(name) is None:
            return False
        if self.line_of(name) is None:
            raise ConfigError(
                f"{name} does not stand here by its own name, but in a range or in another source of the inventory; "
                "remove it there by hand.",
                path=str(self.file),
            )
        with self._edit() as text:
            for path in Layout(text).paths_of(name):
                text.remove(*path)
        return True

    def join(self, name: str, group: str) -> None:
        """Put a machine into one more group. Raises ConfigError where a program cannot write there."""
        with self._edit() as text:
            text.put(None, *Layout(text).path_of(group), "hosts", name)

    def leave(self, name: str, group: str) -> bool:
        """Take a machine out of a group if it stands elsewhere too and has no variables there; return whether it is."""
        with self._edit() as text:
            layout = Layout(text)
            path = (*layout.path_of(group), "hosts", name)
            if path not in layout.paths_of(name) or len(layout.paths_of(name)) == 1 or text.entries(*path):
                return False
            text.remove(*path)
        return True

    def _read(self) -> YamlDocument:
        return load(self.file)

    @contextmanager
    def _edit(self) -> Iterator[YamlDocument]:
        """Yield the document to change under a lock, and write it whole or, after an error, not at all."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise storage_error(error, self.folder) from error
        with file_lock(self.folder / f".{self.file.name}.lock"):
            there = self.file.is_file()
            text = self._read() if there else YamlDocument(_NEW, str(self.file))
            before = text.text if there else None
            yield text
            if text.text != before:
                mode = self.file.stat().st_mode & 0o777 if there else 0o644
                atomic_write(self.file, text.text, mode=mode)


def load(file: Path) -> YamlDocument:
    """Parse one YAML file with its ends of lines; an encrypted one as empty. Raises ConfigError."""
    if file.suffix not in _VARIABLE_ENDINGS:
        raise ConfigError("is not YAML; rbee edits YAML only. Change it by hand.", path=str(file))
    try:
        text = file.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot be read: {error}", path=str(file)) from error
    return YamlDocument("" if text.startswith("$ANSIBLE_VAULT") else text, str(file))


def _node(host: Host) -> Node:
    """Return a machine's fields from the variables that Ansible has for it."""
    found: dict[str, Any] = {}
    for name, names in _NAMES.items():
        value = next((host.variables[key] for key in reversed(names) if host.variables.get(key) is not None), None)
        if "port" in name:
            found[name] = int(value) if isinstance(value, int | str) and str(value).isdigit() else None
        else:
            found[name] = None if value is None else str(value)
    return Node(name=host.name, groups=host.groups, variables=host.variables, **found)
