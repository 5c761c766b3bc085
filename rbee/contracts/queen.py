"""What the queen's own routes take and give, beside tasks: lists, spawning, stopping, models, logs."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from rbee.contracts.hives import HiveInfo, LogsQuery, NodeInfo, NodeText
from rbee.contracts.ids import CLIENT_NAME, LOCALHOST_NODE
from rbee.contracts.models import CatalogEntry, DownloadProgress, LoadingProgress, ModelText
from rbee.contracts.workers import Quarantine, SpawnRequest, WorkerHealth, WorkerInfo


class QueenHealth(BaseModel):
    """`GET /health`: the one route without a key."""

    status: str = "alive"
    version: str


class QueenStatus(BaseModel):
    """`GET /v2/status`: what the keeper shows for `daemon status`; of the tasks that run, some wait for a slot."""

    version: str
    pid: int
    started_unix: float
    ephemeral: bool
    hives_connected: int
    workers: int
    tasks_running: int
    tasks_waiting: int


class QueenShutdown(BaseModel):
    """`POST /v1/admin/shutdown`: `when_idle` lets running tasks end first, without a limit on time.

    `hives` names the hives of other machines that end too; None means all of them. Those that go on only lose the
    workers that this queen started.
    """

    model_config = ConfigDict(extra="forbid")

    when_idle: bool = False
    hives: list[str] | None = None


class BeehiveList(BaseModel):
    """`GET /v2/registry/beehives/list`."""

    beehives: list[NodeInfo]


class ClientName(BaseModel):
    """`POST /v2/keys/add` and `/remove`: whose key."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(pattern=CLIENT_NAME)


class ClientKey(BaseModel):
    """The answer to `POST /v2/keys/add`: the only time that the key is shown."""

    name: str
    key: str


class ClientList(BaseModel):
    """`GET /v2/keys/list`: who has a key."""

    clients: list[ClientName]


class NodeQuery(BaseModel):
    """`GET /v2/models/list`: which node."""

    model_config = ConfigDict(extra="forbid")

    node: NodeText


class MaybeNodeQuery(BaseModel):
    """`GET /v2/workers/list` and `/v2/workers/health`: which node, all of them where none is named."""

    model_config = ConfigDict(extra="forbid")

    node: NodeText | None = None


class NodeLogsQuery(LogsQuery):
    """`GET /v2/logs`: whose logs."""

    node: NodeText = LOCALHOST_NODE


class HiveList(BaseModel):
    """`GET /v2/hives/list`."""

    hives: list[HiveInfo]


class NodeQuarantine(Quarantine):
    """A quarantine with the node that it is on."""

    node: str = ""


class WorkerList(BaseModel):
    """`GET /v2/workers/list?node=`, and `GET /v1/workers/list` of a hive."""

    workers: list[WorkerInfo]
    quarantined: list[NodeQuarantine] = Field(default_factory=list)


class WorkerHealthRow(BaseModel):
    """One worker's own answer, or why it gave none."""

    node: str
    worker_id: str
    health: WorkerHealth | None = None
    error: str | None = None


class WorkerHealthList(BaseModel):
    """`GET /v2/workers/health?node=`."""

    workers: list[WorkerHealthRow]


class SpawnTask(SpawnRequest):
    """`POST /v2/workers/spawn`: a spawn on a named node.

    Answered by a stream: `event: narration` and `event: progress` as it goes,
    `data: WorkerSpawned` at the end, then `data: [DONE]`; `event: error` on failure.
    """

    node: NodeText


class WorkerSpawned(BaseModel):
    """The good end of a spawn stream: the worker, ready or (where not waited for) loading."""

    worker: WorkerInfo


class WorkerStop(BaseModel):
    """`POST /v2/workers/shutdown`."""

    model_config = ConfigDict(extra="forbid")

    worker_id: str = Field(min_length=1, max_length=128)


class NodeModel(BaseModel):
    """Name a model on a node: `GET /v2/models/show`, `DELETE /v2/models`, and `POST /v2/models/download`.

    The last is answered by a stream like the spawn's, of `progress` events.
    """

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    node: NodeText
    model: ModelText


class ModelList(BaseModel):
    """`GET /v2/models/list?node=`, and `GET /v1/models/list` of a hive."""

    models: list[CatalogEntry]


class Progress(BaseModel):
    """`event: progress` of a task or spawn stream: exactly one of the two is given."""

    download: DownloadProgress | None = None
    loading: LoadingProgress | None = None


class LogLine(BaseModel):
    """One event of a log stream; `source` is `rbee-hive`, `queen-rbee` or a worker's id."""

    source: str
    line: str
