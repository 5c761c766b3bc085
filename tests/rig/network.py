"""Connect the hosts: one bridge with the controller on it, and for each host a namespace and a cable to it.

All names carry the number of the rig, so a rig only ever touches what is its own.
"""

from __future__ import annotations

import json
from pathlib import Path

from tests.rig.commands import attempt, call

_NAMESPACES = Path("/run/netns")


class Network:
    """The network 10.213.*number*.0/24 of one rig; the controller is its first address."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.bridge = f"rbrig{number}"
        self.controller = f"10.213.{number}.1"

    def is_free(self) -> bool:
        """Tell whether nothing on this machine has the bridge's name or routes the addresses."""
        if Path("/sys/class/net", self.bridge).exists():
            return False
        # Where the answer would leave by another way than the default one, somebody has a network like this.
        route = json.loads(call("ip", "-j", "route", "show", "table", "all"))
        return not any(str(entry.get("dst", "")).startswith(f"10.213.{self.number}.") for entry in route)

    def open(self) -> None:
        """Make the bridge."""
        call("ip", "link", "add", self.bridge, "type", "bridge", "forward_delay", "0")
        call("ip", "address", "add", f"{self.controller}/24", "dev", self.bridge)
        call("ip", "link", "set", self.bridge, "up")

    def address(self, place: int) -> str:
        """Give the address of the host at *place*, which counts from 1."""
        return f"10.213.{self.number}.{10 + place}"

    def namespace(self, host: str) -> str:
        """Give the name of a host's network namespace."""
        return f"rbee-rig-{self.number}-{host}"

    def cable(self, place: int) -> str:
        """Give the name of the controller's end of a host's cable."""
        return f"rbrig{self.number}-{place}"

    def attach(self, host: str, place: int) -> None:
        """Make a host's namespace, with its address on `eth0`, and plug the cable in."""
        space, cable = self.namespace(host), self.cable(place)
        call("ip", "netns", "add", space)
        call("ip", "link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", space)
        call("ip", "link", "set", cable, "master", self.bridge, "up")
        inside = ["ip", "-n", space]
        call(*inside, "address", "add", f"{self.address(place)}/24", "dev", "eth0")
        call(*inside, "link", "set", "eth0", "up")
        call(*inside, "link", "set", "lo", "up")

    def detach(self, host: str, place: int) -> None:
        """Take a host's cable and namespace away."""
        call("ip", "link", "delete", self.cable(place))
        call("ip", "netns", "delete", self.namespace(host))

    def plug(self, place: int, *, connected: bool) -> None:
        """Mend or cut a host's cable."""
        call("ip", "link", "set", self.cable(place), "up" if connected else "down")

    def namespaces(self) -> list[str]:
        """List the namespaces of this rig that exist."""
        start = self.namespace("")
        return sorted(path.name for path in _NAMESPACES.glob(f"{start}*")) if _NAMESPACES.exists() else []

    def inhabitants(self) -> list[int]:
        """List the processes that live in this rig's namespaces."""
        return [int(pid) for space in self.namespaces() for pid in call("ip", "netns", "pids", space).split()]

    def links(self) -> list[str]:
        """List the bridge and the cables of this rig that exist."""
        names = sorted(path.name for path in Path("/sys/class/net").iterdir())
        return [name for name in names if name == self.bridge or name.startswith(f"{self.bridge}-")]

    def close(self) -> None:
        """Take everything away that `open` and `attach` made, as far as it is there."""
        for link in self.links():
            # A cable goes with its namespace, which may happen between the look and the deletion.
            attempt("ip", "link", "delete", link)
        for space in self.namespaces():
            call("ip", "netns", "delete", space)
