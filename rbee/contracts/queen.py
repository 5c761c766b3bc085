"""Requests and responses of the queen's own routes other than tasks: lists, workers, models, logs."""

from __future__ import annotations

from typing import Final

from pydantic import BaseModel, ConfigDict, Field

from rbee.contracts.devices import DeviceSelection, YieldRequest
from rbee.contracts.hives import HiveInfo, LogsQuery, NodeInfo, NodeText
from rbee.contracts.ids import LOCALHOST_NODE
from rbee.contracts.models import CatalogEntry, DownloadProgress, LoadingProgress, ModelText, RunningDownload
from rbee.contracts.workers import Quarantine, SpawnRequest, WorkerHealth, WorkerInfo

MAX_PAGE: Final = 1000


class QueenHealth(BaseModel):
    """`GET /health`: the only route without a key."""

    status: str = "alive"
    version: str


class QueenStatus(BaseModel):
    """`GET /v2/status`, which `daemon status` shows; `tasks_running` includes those that wait for a slot.

    One that is `draining` is stopping and accepts no new tasks.
    """

    version: str
    pid: int
    started_unix: float
    ephemeral: bool
    hives_connected: int
    workers: int
    tasks_running: int
    tasks_waiting: int
    draining: bool = False


class QueenShutdown(BaseModel):
    """`POST /v1/admin/shutdown`: `when_idle` waits for running tasks first, without a time limit.

    `hives` names the hives of other machines to shut down too; None means all of them. The others keep running,
    without the workers that this queen started.
    """

    model_config = ConfigDict(extra="forbid")

    when_idle: bool = False
    hives: list[str] | None = None


class PageQuery(BaseModel):
    """Which part of a list is asked for: at most `limit` rows, those after the `next` of the page before; else all."""

    model_config = ConfigDict(extra="forbid")

    limit: int | None = Field(default=None, ge=1, le=MAX_PAGE)
    after: str = Field(default="", max_length=512)


class Page(BaseModel):
    """A part of a list. `next` is what to ask for `after`; without one nothing follows."""

    next: str | None = Field(default=None, exclude_if=lambda next_: next_ is None)


class BeehiveList(Page):
    """`GET /v2/registry/beehives/list?limit=&after=`."""

    beehives: list[NodeInfo]


class NodesQuery(BaseModel):
    """The query of `GET /v2/models/list`; without a node, all nodes."""

    model_config = ConfigDict(extra="forbid")

    node: list[NodeText] = Field(default_factory=list, max_length=10_000)


class MaybeNodeQuery(BaseModel):
    """The query of `GET /v2/workers/health`; without a node, all nodes."""

    model_config = ConfigDict(extra="forbid")

    node: NodeText | None = None


class NodePageQuery(PageQuery):
    """The query of `GET /v2/hives/list` and `/v2/workers/list`; without a node, all nodes."""

    node: NodeText | None = None


class NodeLogsQuery(LogsQuery):
    """The query of `GET /v2/logs`."""

    node: NodeText = LOCALHOST_NODE


class HiveList(Page):
    """`GET /v2/hives/list?node=&limit=&after=`."""

    hives: list[HiveInfo]


class NodeYield(YieldRequest):
    """`POST /v2/hives/yield`: empty devices of a node for another program."""

    node: NodeText


class NodeResume(DeviceSelection):
    """`POST /v2/hives/resume`: use devices of a node again."""

    node: NodeText


class NodeQuarantine(Quarantine):
    """A quarantine and its node; with `client`, a model that is kept from that client only, on all nodes."""

    node: str = ""
    client: str | None = None


class UnreachableHive(BaseModel):
    """A hive that does not answer, and the workers that it had when it was last heard of.

    Of a hive that has ended there are none: its workers ended with it.
    """

    node: str
    reason: str
    last_seen_unix: float | None = None
    workers: list[WorkerInfo] = Field(default_factory=list)


class WorkerList(BaseModel):
    """`GET /v1/workers/list` of a hive."""

    workers: list[WorkerInfo]
    quarantined: list[NodeQuarantine] = Field(default_factory=list)


class FleetWorkerList(WorkerList, Page):
    """`GET /v2/workers/list?node=&limit=&after=`; a hive's quarantines, and one that does not answer, are rows too."""

    unreachable: list[UnreachableHive]


class WorkerHealthRow(BaseModel):
    """The health that one worker reported, or why it did not answer."""

    node: str
    worker_id: str
    health: WorkerHealth | None = None
    error: str | None = None


class WorkerHealthList(BaseModel):
    """`GET /v2/workers/health?node=`."""

    workers: list[WorkerHealthRow]


class SpawnTask(SpawnRequest):
    """`POST /v2/workers/spawn`: a spawn on a named node.

    The response is a stream: `event: narration` and `event: progress` while the worker starts,
    `data: WorkerSpawned` at the end, then `data: [DONE]`; `event: error` on failure.
    """

    node: NodeText


class WorkerSpawned(BaseModel):
    """The last event of a successful spawn stream: the worker, ready or (if not waited for) loading."""

    worker: WorkerInfo


class WorkerStop(BaseModel):
    """`POST /v2/workers/shutdown`."""

    model_config = ConfigDict(extra="forbid")

    worker_id: str = Field(min_length=1, max_length=128)


class NodeModel(BaseModel):
    """A model on a node: `GET /v2/models/show`, `DELETE /v2/models`, and `POST /v2/models/download`.

    The response to the last one is a stream like that of a spawn, of `progress` events.
    """

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    node: NodeText
    model: ModelText


class ModelList(BaseModel):
    """`GET /v1/models/list` of a hive: the catalog, and what is being downloaded."""

    models: list[CatalogEntry]
    downloads: list[RunningDownload] = Field(default_factory=list)


class ModelCopy(BaseModel):
    """A model as one node has it."""

    node: str
    local_path: str
    downloaded_at_unix: int
    problem: str | None = None


class FleetModel(CatalogEntry):
    """A model of the fleet, once however many `nodes` have it; the other fields are those of the first sound copy.

    What has the same reference and other bytes is another model.
    """

    nodes: list[ModelCopy]


class NodeDownload(RunningDownload):
    """A download that has not ended, and the node that it is for."""

    node: str


class FleetModelList(BaseModel):
    """`GET /v2/models/list?node=`: the models of the nodes asked for, and what is being downloaded there.

    `unreachable` are the nodes that did not answer; where only one was asked for, that is an error.
    """

    models: list[FleetModel]
    downloads: list[NodeDownload] = Field(default_factory=list)
    unreachable: list[UnreachableHive] = Field(default_factory=list)


class Progress(BaseModel):
    """`event: progress` of a task or spawn stream: exactly one of the two is set."""

    download: DownloadProgress | None = None
    loading: LoadingProgress | None = None


class LogLine(BaseModel):
    """One event of a log stream; `source` is `rbee-hive`, `queen-rbee` or a worker's id."""

    source: str
    line: str
