"""Nodes as the queen registers them, hives as they describe themselves, and receipts of a shutdown."""

from __future__ import annotations

import ipaddress
import re
from enum import StrEnum
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from rbee.contracts.devices import Backend, Device, YieldedDevice
from rbee.contracts.ids import API_VERSION
from rbee.contracts.models import CatalogEntry
from rbee.contracts.patterns import HEADER_TEXT, NODE_NAME, ONE_LINE
from rbee.contracts.workers import Quarantine, WorkerInfo, WorkerStopReceipt

MAX_NODES_AT_ONCE: Final = 1000


class NodeStatus(StrEnum):
    """The state in which the queen last saw a node."""

    UNKNOWN = "unknown"
    REACHABLE = "reachable"
    UNREACHABLE = "unreachable"


_LABEL: Final = r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOST_NAME: Final = re.compile(rf"{_LABEL}(\.{_LABEL})*\.?")


def _check_address(text: str) -> str:
    """Check that *text* is a host name or an IP address; clients cannot parse URLs with anything else."""
    if ":" in text or (text.replace(".", "").isdigit() and text.count(".") == 3):
        ipaddress.ip_address(text)
    elif not _HOST_NAME.fullmatch(text):
        raise ValueError("not a host name or an IP address")
    return text


Address = Annotated[str, Field(min_length=1, max_length=253), AfterValidator(_check_address)]
"""A host name or an IP address; IPv6 without brackets."""

NodeText = Annotated[str, Field(min_length=1, max_length=253)]
OneLine = Annotated[str, Field(pattern=ONE_LINE)]
"""Text without control characters."""


class NodeSpec(BaseModel):
    """A node to add to the registry: `POST /v2/registry/beehives/add`.

    The queen reaches the hive over HTTP with `hive_port` and `hive_key`; it stores the key in a file of mode 0600,
    never in the registry. `replace` updates an existing node instead of failing.
    """

    model_config = ConfigDict(extra="forbid")

    node_name: str = Field(min_length=1, max_length=253, pattern=NODE_NAME)
    ssh_host: Address
    ssh_port: int = Field(default=22, ge=1, le=65535)
    ssh_user: OneLine = Field(default="root", max_length=64)
    ssh_key_path: OneLine | None = Field(default=None, max_length=4096)
    git_repo_url: OneLine | None = Field(default=None, max_length=2048)
    git_branch: OneLine = Field(default="main", max_length=255)
    install_path: OneLine | None = Field(default=None, max_length=4096)
    hive_port: int = Field(default=9200, ge=1, le=65535)
    # It is sent in a header.
    hive_key: str | None = Field(default=None, max_length=512, pattern=HEADER_TEXT, repr=False)
    backends: list[Backend] = Field(default_factory=list)
    devices: dict[Backend, int] = Field(default_factory=dict)
    replace: bool = False


class _CheckedLater:
    """Describe a field as a node; what is given for it is checked by whoever can name the node that is wrong."""

    def __get_pydantic_json_schema__(self, _schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return handler(NodeSpec.__pydantic_core_schema__)


class NodeSpecs(BaseModel):
    """Several nodes to add to the registry: `POST /v2/registry/beehives/add-many`. All of them are added, or none.

    Each is a `NodeSpec`, as which the queen checks it: what is wrong is told of every node, by its name.
    """

    model_config = ConfigDict(extra="forbid")

    nodes: list[Annotated[Any, _CheckedLater()]] = Field(min_length=1, max_length=MAX_NODES_AT_ONCE)


class NodeInfo(BaseModel):
    """A row of the node registry, as lists show it (never with a key)."""

    node_name: str
    ssh_host: str
    ssh_port: int = 22
    ssh_user: str = ""
    ssh_key_path: str | None = None
    git_repo_url: str | None = None
    git_branch: str = "main"
    install_path: str | None = None
    hive_port: int = 9200
    last_connected_unix: int | None = None
    last_error: str | None = None
    status: NodeStatus = NodeStatus.UNKNOWN
    backends: list[Backend] = Field(default_factory=list)
    devices: dict[Backend, int] = Field(default_factory=dict)


class NodeRef(BaseModel):
    """The name of a node: `POST /v2/registry/beehives/remove`."""

    model_config = ConfigDict(extra="forbid")

    node_name: NodeText


class LogsQuery(BaseModel):
    """`GET /v1/logs` of a hive: how many lines of each log, and whether to follow it."""

    model_config = ConfigDict(extra="forbid")

    lines: int = Field(default=100, ge=0, le=100_000)
    follow: bool = False


class HiveHealth(BaseModel):
    """`GET /v1/health` of a hive: the only route without a key, so it says nothing about the machine."""

    status: str = "alive"
    version: str
    api_version: str = API_VERSION


class HiveInfo(BaseModel):
    """A hive as it described itself to the queen on the control channel (`GET /v2/hives/list`)."""

    node: str
    url: str
    connected: bool
    version: str | None = None
    backends: list[Backend] = Field(default_factory=list)
    devices: list[Device] = Field(default_factory=list)
    faults: dict[Backend, str] = Field(default_factory=dict)
    models: list[CatalogEntry] = Field(default_factory=list)
    workers: list[WorkerInfo] = Field(default_factory=list)
    quarantined: list[Quarantine] = Field(default_factory=list)
    yielded: list[YieldedDevice] = Field(default_factory=list)
    last_seen_unix: float | None = None
    last_error: str | None = None


class DeviceYield(BaseModel):
    """What became of one device that was to be yielded: the device afterwards, and the workers that ran there.

    What other programs hold of its memory is in `device`.
    """

    device: Device
    until_unix: float | None = None
    workers: list[WorkerStopReceipt] = Field(default_factory=list)


class YieldReceipt(BaseModel):
    """The outcome of yielding devices of a node."""

    node: str = ""
    devices: list[DeviceYield]


class ResumeReceipt(BaseModel):
    """The devices that were yielded, and are used again; none where none of those asked for was yielded."""

    node: str = ""
    devices: list[YieldedDevice]


class ShutdownReceipt(BaseModel):
    """The outcome of a hive's shutdown: its workers, one by one.

    `kept`: the hive ran before the queen did and keeps running; only these workers were stopped.
    """

    node: str = ""
    workers: list[WorkerStopReceipt] = Field(default_factory=list)
    gone: bool = True
    kept: bool = False
    error: str | None = None


class CascadeReceipt(BaseModel):
    """The outcome of a queen's shutdown, with its hives (`POST /v1/admin/shutdown` of the queen)."""

    hives: list[ShutdownReceipt] = Field(default_factory=list)
    pids: list[int] = Field(default_factory=list)
    seconds: float = 0.0

    @property
    def complete(self) -> bool:
        """Return whether no process is left running."""
        return all((hive.gone or hive.kept) and all(worker.gone for worker in hive.workers) for hive in self.hives)


class BackendList(BaseModel):
    """`GET /v1/backends/list` of a hive, and `rbee-hive detect --json`: devices, and their counts for the registry."""

    backends: list[Backend]
    counts: dict[Backend, int]
    devices: list[Device]
    faults: dict[Backend, str] = Field(default_factory=dict)


class WorkerBinary(BaseModel):
    """A worker program that a hive can start."""

    name: str
    path: str


class WorkerBinaryList(BaseModel):
    """`GET /v1/worker-binaries/list` of a hive."""

    binaries: list[WorkerBinary]
