"""A rig: a network of hosts on this machine with a repository to install from, from `with` to the end of it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.rig.base import ensure_base, ensure_programs, why_not
from tests.rig.claims import Claim, claim, hang_up, session_folder
from tests.rig.commands import RigUnavailable
from tests.rig.container import Container
from tests.rig.host import Host, Trust
from tests.rig.inventory import write_inventory
from tests.rig.keys import copy_key, known_hosts_line, make_key
from tests.rig.network import Network
from tests.rig.repository import Repository
from tests.rig.spec import HostSpec
from tests.support.checkout import ROOT

# Booting is mostly processor time, of which a small machine has little.
_AT_ONCE = 8


class Rig:
    """Hosts h1, h2... that the controller (this machine) reaches by SSH; they reach nobody but it and each other.

    *hosts* is their number, or a spec for each name; all have *packages* beside what a small server has.
    *tell* hears a line for each host that is up.
    Raises RigUnavailable where there can be no rig.
    """

    def __init__(
        self,
        hosts: int | Mapping[str, HostSpec] = 3,
        *,
        packages: Sequence[str] = (),
        tell: Callable[[str], None] = lambda _line: None,
    ) -> None:
        named = {f"h{place}": HostSpec() for place in range(1, hosts + 1)} if isinstance(hosts, int) else dict(hosts)
        self._specs: dict[str, HostSpec] = named
        self._packages = packages
        self._tell = tell
        self._hosts: dict[str, Host] = {}
        self._claim: Claim | None = None
        self._repository: Repository | None = None
        self._places = itertools.count(1)

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def open(self) -> None:
        """Boot all hosts and wait until they answer; what is not wholly up is taken away again."""
        if reason := why_not():
            raise RigUnavailable(reason)
        ensure_programs()
        self._base = ensure_base(self._packages)
        self._claim = claim()
        try:
            self._set_up(self._claim)
        except BaseException:
            self.close()
            raise

    def __getitem__(self, name: str) -> Host:
        return self._hosts[name]

    def __iter__(self) -> Iterator[Host]:
        return iter(self._hosts.values())

    def __len__(self) -> int:
        return len(self._hosts)

    @property
    def number(self) -> int:
        """The number that all names and addresses of this rig carry."""
        return self._claimed.number

    @property
    def folder(self) -> Path:
        """Where the rig keeps its files; only root can look into it."""
        return self._claimed.folder

    @property
    def controller(self) -> str:
        """This machine's address as the hosts see it."""
        return self._network.controller

    @property
    def key(self) -> Path:
        """The private key that the hosts let in."""
        return self._trust.key

    @property
    def known_hosts(self) -> Path:
        """The file with the hosts' true keys."""
        return self._trust.known_hosts

    @property
    def repository(self) -> Repository:
        """The repository that the hosts can clone."""
        assert self._repository is not None, "the rig is not up"
        return self._repository

    def ssh_options(self) -> list[str]:
        """Give the options that make ssh, scp and Ansible use this rig's key and host keys, and nothing else."""
        return self._trust.options()

    def reset(self, hosts: Iterable[Host] | None = None, *, spec: HostSpec | None = None) -> None:
        """Make some or all hosts bare again, all at once; *spec* is what they are then, by default a good host."""
        hang_up(self.folder)
        chosen = list(self) if hosts is None else list(hosts)
        _all_at_once(lambda host: host.reset(spec or HostSpec()), chosen)

    def add_host(self, name: str, spec: HostSpec | None = None) -> Host:
        """Boot one more host."""
        host = self._host(name, spec or HostSpec())
        host.make()
        return host

    def remove_host(self, name: str) -> None:
        """End a host for good; its address is not given to another one."""
        host = self._hosts.pop(name)
        host.end()
        del self._trust.addresses[name]

    def other_key(self, *, mode: int = 0o600) -> Path:
        """Make a key that no host lets in."""
        return copy_key(make_key(self.folder / "other_key", comment="other"), self.folder / "key-other", mode=mode)

    def key_with_mode(self, mode: int) -> Path:
        """Copy the rig's key with another mode, such as 0o644, which ssh refuses to use."""
        return copy_key(self.key, self.folder / f"key-{mode:o}", mode=mode)

    def write_inventory(self, folder: Path, *, queen: str | None = "h1", **fleet: object) -> Path:
        """Write an Ansible inventory of all hosts into *folder*, and give its `hosts.yml`.

        *queen* is the host that gets the queen, None for none; *fleet* are variables such as `rbee_models=[...]`.
        """
        return write_inventory(
            folder,
            addresses={host.name: host.address for host in self},
            queen=queen,
            reach={
                "ansible_ssh_private_key_file": str(self.key),
                "ansible_ssh_common_args": self._trust.ansible_options(),
                "ansible_control_path_dir": str(session_folder(self.folder)),
            },
            fleet={
                "rbee_repo_url": self.repository.url,
                "rbee_repo_branch": "main",
                # Scenarios count the processes of workers.
                "rbee_hive_settings": {"spare_worker": False},
                **fleet,
            },
        )

    def close(self) -> None:
        """End all hosts and take away everything that the rig made."""
        if self._repository is not None:
            self._repository.close()
            self._repository = None
        try:
            _all_at_once(lambda host: host.end(), list(self))
        finally:
            self._hosts.clear()
            if self._claim is not None:
                self._claim.release()
                self._claim = None

    @property
    def _claimed(self) -> Claim:
        assert self._claim is not None, "the rig is not up"
        return self._claim

    def _set_up(self, mine: Claim) -> None:
        self._network = Network(mine.number)
        self._network.open()
        self._trust = Trust(
            key=make_key(mine.folder / "key", comment=f"rbee-rig-{mine.number}"),
            known_hosts=mine.folder / "known_hosts",
            addresses={},
        )
        session_folder(mine.folder).mkdir(mode=0o700)
        self._trust.known_hosts.write_text("", encoding="ascii")
        self._repository = Repository(mine.folder, checkout=ROOT, address=self.controller)
        made = [self._host(name, spec) for name, spec in self._specs.items()]
        self._tell(f"rig: booting {made[0].name}" + (f" to {made[-1].name}" if len(made) > 1 else ""))
        up = itertools.count(1)

        def boot(host: Host) -> None:
            host.make()
            self._tell(f"rig: {host.name} is up ({next(up)} of {len(made)})")

        _all_at_once(boot, made)

    def _host(self, name: str, spec: HostSpec) -> Host:
        place = next(self._places)
        folder = self.folder / name
        folder.mkdir()
        self._network.attach(name, place)
        container = Container(
            self._network.namespace(name),
            hostname=name,
            folder=folder,
            base=self._base,
            namespace=self._network.namespace(name),
        )
        host = Host(name, place, container=container, network=self._network, trust=self._trust, spec=spec)
        self._trust.addresses[name] = host.address
        with self.known_hosts.open("a", encoding="ascii") as known:
            known.write(known_hosts_line(host.address, host.host_key))
        self._hosts[name] = host
        return host


def _all_at_once(action: Callable[[Host], None], hosts: list[Host]) -> None:
    """Do something to all hosts; raises the first error after all have ended."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for outcome in [pool.submit(action, host) for host in hosts]:
            outcome.result()
