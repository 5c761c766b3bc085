"""Find playbooks and roles: in the checkout that this runs from, else inside the installed wheel."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError

_PACKAGE = Path(__file__).resolve().parent
_CHECKOUT = _PACKAGE.parent.parent
# Where the wheel carries them, by force-include in pyproject.toml.
_SHIPPED = _PACKAGE / "shipped"


@dataclass(frozen=True, slots=True)
class Assets:
    """The folder that holds `playbooks/`, with the roles in it, `inventory/example/` and `ansible.cfg`."""

    root: Path

    @classmethod
    def find(cls) -> Assets:
        """Search both places. Raises RbeeError if neither has them: the installation is incomplete."""
        for root in (_CHECKOUT, _SHIPPED):
            if (root / "playbooks" / "site.yml").is_file() and (root / "playbooks" / "roles" / "rbee_hive").is_dir():
                return cls(root)
        raise RbeeError(
            ErrorCode.INTERNAL,
            f"Neither {_CHECKOUT} nor {_SHIPPED} has the playbooks.",
            hint="Reinstall rbee: pip install --force-reinstall 'rbee[fleet]'",
        )

    @property
    def roles(self) -> Path:
        """All roles."""
        return self.root / "playbooks" / "roles"

    @property
    def config(self) -> Path:
        """The configuration of Ansible."""
        return self.root / "ansible.cfg"

    def playbook(self, name: str) -> Path:
        """Return one playbook by its name without ending. Raises RbeeError with the names there are."""
        path = self.root / "playbooks" / f"{name}.yml"
        if not path.is_file():
            raise RbeeError(
                ErrorCode.INVALID_REQUEST,
                f"There is no playbook {name!r}.",
                hint="There are: " + ", ".join(self.playbooks()),
            )
        return path

    def playbooks(self) -> list[str]:
        """List the names of all playbooks."""
        return sorted(path.stem for path in (self.root / "playbooks").glob("*.yml"))
