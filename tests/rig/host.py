"""A host of the rig as a test sees it: reach it by SSH, look inside it, and let bad luck happen to it."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from tests.rig.base import ADMIN
from tests.rig.commands import RigError, attempt
from tests.rig.container import Container
from tests.rig.keys import make_key
from tests.rig.mounts import remove_tree
from tests.rig.network import Network
from tests.rig.spec import HostSpec, prepare
from tests.support.commands import Result
from tests.support.waiting import eventually

_SSH_FAILED = 255


@dataclass(frozen=True)
class Trust:
    """How the controller reaches hosts: its key, the host keys it knows, and the addresses by name."""

    key: Path
    known_hosts: Path
    addresses: dict[str, str]

    def options(self, key: Path | None = None) -> list[str]:
        """Give ssh's options: this key and these host keys only, and never a question."""
        patience = {"BatchMode": "yes", "ConnectTimeout": "5", "LogLevel": "ERROR"}
        chosen = [word for name, value in {**self._checks(), **patience}.items() for word in ("-o", f"{name}={value}")]
        return ["-F", "/dev/null", "-i", str(key or self.key), *chosen]

    def ansible_options(self) -> str:
        """Give what Ansible has to add to its own options for ssh."""
        return " ".join(f"-o {name}={value}" for name, value in self._checks().items())

    def _checks(self) -> dict[str, str]:
        return {
            "GlobalKnownHostsFile": "/dev/null",
            "IdentitiesOnly": "yes",
            "StrictHostKeyChecking": "yes",
            "UserKnownHostsFile": str(self.known_hosts),
        }


class Host:
    """One host; `name` is what inventories call it, `address` is where it answers."""

    def __init__(
        self,
        name: str,
        place: int,
        *,
        container: Container,
        network: Network,
        trust: Trust,
        spec: HostSpec,
    ) -> None:
        self.name = name
        self.spec = spec
        self.address = network.address(place)
        self.host_key = make_key(container.folder / "ssh_host_ed25519_key", comment=name)
        self._place = place
        self._container = container
        self._network = network
        self._trust = trust

    # --- reach it

    def ssh(self, *, user: str = ADMIN, key: Path | None = None) -> list[str]:
        """Give the ssh command that a remote command line may follow."""
        return ["ssh", *self._trust.options(key), f"{user}@{self.address}"]

    def run(
        self,
        *argv: str,
        sudo: bool = False,
        stdin: str | bytes = b"",
        within: float = 60,
        check: bool = True,
        user: str = ADMIN,
        key: Path | None = None,
    ) -> Result:
        """Run a command over SSH, with sudo if asked. Raises RigError if it fails, unless *check* is off."""
        words = ["sudo", "-n", *argv] if sudo else list(argv)
        return self._done(attempt(*self.ssh(user=user, key=key), shlex.join(words), stdin=stdin, within=within), check)

    def inside(self, *argv: str, stdin: str | bytes = b"", within: float = 60, check: bool = True) -> Result:
        """Run a command as root past network, SSH and sudo; works with the cable cut, and while the host is off."""
        return self._done(attempt(*self._container.enter(*argv), stdin=stdin, within=within), check)

    def read_file(self, path: str) -> str:
        """Read a text file. Raises RigError if there is none."""
        return self.inside("cat", path).stdout

    def write_file(self, path: str, content: str | bytes, *, mode: str = "0644", owner: str = "root:root") -> None:
        """Write a file, and the folders above it."""
        script = 'mkdir -p "$(dirname "$1")" && cat > "$1" && chmod "$2" "$1" && chown "$3" "$1"'
        self.inside("sh", "-c", script, "sh", path, mode, owner, stdin=content)

    def exists(self, path: str) -> bool:
        """Tell whether there is anything at a path."""
        return self.inside("test", "-e", path, check=False).code == 0

    def answers(self) -> bool:
        """Tell whether SSH lets the admin in; a refused key counts as an answer where the host was told to refuse."""
        result = attempt(*self.ssh(), "true")
        refused = result.code == _SSH_FAILED and "Permission denied" in result.stderr
        return result.code == 0 or (refused and not self.spec.key)

    def console(self) -> str:
        """Read what it printed while it came up and went down."""
        return self._container.log.read_text(encoding="utf-8", errors="replace") if self._container.log.exists() else ""

    # --- its power

    @property
    def is_on(self) -> bool:
        """Whether its power is on."""
        return self._container.running

    def boot(self, *, within: float = 60) -> None:
        """Turn it on and wait until SSH answers."""
        self._container.start()
        try:
            eventually(self.answers, within=within, because=f"{self.name} answers SSH")
        except AssertionError as late:
            raise RigError(f"{late}; its console ends with:\n{self.console()[-2000:]}") from None

    def stop(self) -> None:
        """Shut it down in order."""
        self._container.stop()

    def reboot(self, *, within: float = 60) -> None:
        """Reboot it from the inside and wait until it is back."""
        before = self._container.init
        self.inside("systemctl", "reboot", "--no-wall", check=False)
        eventually(
            lambda: self._container.init not in {None, before}, within=within, because=f"{self.name} went down and up"
        )
        self.boot(within=within)

    def power_cut(self) -> None:
        """Pull the plug: all its processes are gone at once. `boot` turns it on again, with the disk as it was."""
        self._container.power_cut()

    # --- its bad luck

    def cut_cable(self) -> None:
        """Cut it off from the network; it runs on."""
        self._network.plug(self._place, connected=False)

    def mend_cable(self) -> None:
        """Connect it again."""
        self._network.plug(self._place, connected=True)

    def fill_disk(self, path: str, mb: int, *, mode: str = "0755") -> None:
        """Put a disk of *mb* MiB at a folder, so that what is written there soon finds it full.

        It covers what lies there already and ends with the next boot.
        """
        self.inside("mkdir", "-p", path)
        self.inside("mount", "-t", "tmpfs", "-o", f"size={mb}m,mode={mode}", "rig-small-disk", path)

    def empty_disk(self, path: str) -> None:
        """Take the small disk of `fill_disk` away."""
        self.inside("umount", "--lazy", path)

    def change_host_key(self) -> None:
        """Give it another host key, as an impostor would have; the controller still expects the old one."""
        other = make_key(self._container.folder / "other_key", comment="other")
        self.write_file("/etc/ssh/ssh_host_ed25519_key", other.read_bytes(), mode="0600")
        self.inside("systemctl", "restart", "ssh")

    # --- its life in the rig

    def reset(self, spec: HostSpec | None = None) -> None:
        """Make it bare, with another *spec* if given: off, a fresh disk, its cable mended, and on again."""
        self._container.power_cut()
        self._container.wipe()
        self.spec = spec or self.spec
        self.make()

    def make(self) -> None:
        """Give it a fresh disk and boot it."""
        self._container.mount()
        prepare(
            self._container.root,
            self.spec,
            name=self.name,
            host_key=self.host_key,
            admin_key=self._trust.key,
            hosts=self._trust.addresses,
        )
        self.mend_cable()
        self.boot()

    def end(self) -> None:
        """Turn it off for good, and throw its disk, its cable and its files away."""
        self._container.power_cut()
        self._container.wipe()
        remove_tree(self._container.folder)
        self._network.detach(self.name, self._place)

    def _done(self, result: Result, check: bool) -> Result:
        if check and result.code:
            raise RigError(f"{self.name}: {result}")
        return result
