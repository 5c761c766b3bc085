"""What placement is asked: a model, and where it may run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rbee.contracts.devices import Backend
from rbee.queen.scheduling.prefix_index import PrefixHashes

if TYPE_CHECKING:
    from rbee.contracts.served import ServedModel


@dataclass(frozen=True, slots=True)
class PlacementRequest:
    """The model to run, and where if that matters. `model` is any spelling, `aliases` others that mean the same.

    `prefix_hashes` are those of its prompt (`prefix_index`), `client` is the id of whose request it is. Without
    `may_fetch` a worker is started only where the model's file is. A `served` model has workers of its own, with its
    own settings, where its declaration allows them.
    """

    model: str
    node: str | None = None
    backend: Backend | None = None
    device: int | None = None
    aliases: frozenset[str] = frozenset()
    prefix_hashes: PrefixHashes = ()
    client: str = ""
    may_fetch: bool = True
    served: ServedModel | None = None

    def matches(self, reference: str) -> bool:
        """Return whether *reference* is the requested model."""
        return reference == self.model or reference in self.aliases

    @property
    def name(self) -> str:
        """Return what the model is known by: the name of its declaration, else its reference."""
        return self.model if self.served is None else self.served.name

    @property
    def revision(self) -> str | None:
        """Return the revision of the declaration; None without one."""
        return None if self.served is None else self.served.revision

    @property
    def nodes(self) -> tuple[str, ...]:
        """Return the nodes that the declaration names; empty means all."""
        return () if self.served is None else self.served.where.nodes

    @property
    def devices(self) -> tuple[int, ...]:
        """Return the devices that are asked for; empty means all."""
        if self.device is not None:
            return (self.device,)
        return () if self.served is None else self.served.where.devices

    def allows_node(self, node: str) -> bool:
        """Return whether a worker may run on *node*."""
        return self.node in (None, node) and (not self.nodes or node in self.nodes)

    @property
    def wanted_backend(self) -> Backend | None:
        """Return the backend that is asked for; None means the best of each node."""
        return self.backend or (None if self.served is None else self.served.where.backend)

    def allows_device(self, index: int) -> bool:
        """Return whether a worker may run on the device with this index."""
        return not self.devices or index in self.devices
