"""Served models: what an operator declares that the fleet is to serve, each under a name of its own."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from graphlib import CycleError, TopologicalSorter
from typing import Annotated, Final, Literal, NamedTuple

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo

from rbee.contracts.devices import Backend
from rbee.contracts.hives import NodeText
from rbee.contracts.tasks import ReasoningEffort
from rbee.contracts.workers import Keep, ModelText, ServedName, WorkerOptions, WorkerState

MAX_REPLICAS: Final = 64
MAX_SERVED: Final = 1000
DEFAULT_KEEP_S: Final = 300.0
_UNITS: Final = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)([smhd]?)")
# What a declaration may say in a later version, and what it is for.
_NOT_BUILT: Final = {
    "split": "a model over several devices",
    "gpu_layers": "a part of a model on the CPU",
    "cpu_moe_layers": "experts on the CPU",
    "draft": "a draft model",
    "mmproj": "images",
    "lora": "LoRA adapters",
}


def seconds(value: object) -> object:
    """Return the seconds of a time such as `90s`, `5m`, `2h` or `1d`, and what is no text as it is.

    Raises ValueError for another text than these and `always`, and for true and false, which would count as numbers.
    """
    if isinstance(value, bool):
        raise ValueError(f"{str(value).lower()} is no time; write a time such as 5m, or always")
    if not isinstance(value, str) or value == "always":
        return value
    found = _DURATION.fullmatch(value)
    if found is None:
        raise ValueError(f"{value[:40]!r} is no time; write seconds, a time such as 90s, 5m, 2h or 1d, or always")
    return float(found[1]) * _UNITS[found[2]]


def _refuse(_value: object, info: ValidationInfo) -> None:
    key = info.field_name or ""
    raise ValueError(f"'{key}' ({_NOT_BUILT[key]}) is not built yet in this version of rbee; leave it out")


_NotBuilt = Annotated[None, BeforeValidator(_refuse)]


class Where(BaseModel):
    """Where the workers of a model may run; empty lists allow every node, every device."""

    # Many queens declare nothing, and no start waits for these models.
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    nodes: tuple[NodeText, ...] = Field(default=(), max_length=1000)
    backend: Backend | None = None
    devices: tuple[Annotated[int, Field(ge=0)], ...] = Field(default=(), max_length=64)


class Preset(BaseModel):
    """A further name of a served model, with what its requests have where they do not say it themselves.

    How `enable_thinking` and `reasoning_effort` are said to a model is its template's matter; many know only one of
    them. Raw prompts have no `system`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    top_k: int | None = Field(default=None, ge=0, le=100_000)
    min_p: float | None = Field(default=None, ge=0, le=1)
    repeat_penalty: float | None = Field(default=None, gt=0, le=10)
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    max_tokens: int | None = Field(default=None, ge=1, le=1_000_000)
    enable_thinking: bool | None = None
    reasoning_effort: ReasoningEffort | None = None
    system: str | None = Field(default=None, max_length=16_384, description="system prompt")


class ServedSpec(WorkerOptions):
    """What is declared of a model: `PUT /v2/served/NAME`. Times in seconds, or written as `90s`, `5m`, `2h`, `1d`."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), defer_build=True)

    model: ModelText
    replicas: int = Field(default=0, ge=0, le=MAX_REPLICAS, description="workers kept up; 0 means on demand")
    keep: Annotated[Keep, BeforeValidator(seconds)] = DEFAULT_KEEP_S
    where: Where = Where()
    presets: dict[ServedName, Preset] = Field(default_factory=dict, max_length=100)
    fallback: tuple[ServedName, ...] = Field(
        default=(), max_length=16, description="names of models or presets to try where this one cannot be served now"
    )
    split: _NotBuilt = Field(default=None, exclude=True)
    gpu_layers: _NotBuilt = Field(default=None, exclude=True)
    cpu_moe_layers: _NotBuilt = Field(default=None, exclude=True)
    draft: _NotBuilt = Field(default=None, exclude=True)
    mmproj: _NotBuilt = Field(default=None, exclude=True)
    lora: _NotBuilt = Field(default=None, exclude=True)

    @property
    def revision(self) -> str:
        """Return an id of the model and the options: a worker with another one is to be replaced."""
        text = json.dumps([self.model, self.options], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def pinned(self) -> bool:
        """Return whether its workers stay, used or not, and never give way to another model."""
        return self.keep == "always"


class ServedModel(ServedSpec):
    """One declared model, with the name by which clients ask for it."""

    name: ServedName

    @property
    def names(self) -> tuple[str, ...]:
        """Return its name and those of its presets."""
        return (self.name, *self.presets)


class Contradiction(NamedTuple):
    """What is wrong with declarations taken together; it would not be without any one of *names*."""

    names: tuple[str, ...]
    reason: str


def contradictions(served: Iterable[ServedModel]) -> Iterator[Contradiction]:
    """Yield what is wrong with declarations taken together: names that are taken, fallbacks that lead nowhere.

    Of a name that is declared twice, the later model is at fault, which is the first of the names then.
    """
    models = list(served)
    owners: dict[str, str] = {}
    for model in models:
        for name in model.names:
            if name in owners:
                both = f": by {owners[name]} and by {model.name}" if owners[name] != model.name else ""
                reason = f"the name {name} is declared twice{both}"
                yield Contradiction((model.name,), reason)
            owners.setdefault(name, model.name)
    for model in models:
        for name in model.fallback:
            if name not in owners:
                yield Contradiction((model.name,), f"{model.name} falls back to {name}, which is not declared")
    fallbacks = {model.name: [owners[name] for name in model.fallback if name in owners] for model in models}
    try:
        TopologicalSorter(fallbacks).prepare()
    except CycleError as error:
        circle = tuple(reversed(error.args[1]))
        yield Contradiction(circle, f"the fallbacks {' -> '.join(circle)} go in a circle")
    if len(models) > MAX_SERVED:
        more = tuple(model.name for model in models[MAX_SERVED:])
        yield Contradiction(more, f"there are {len(models)} declarations, at most {MAX_SERVED} are possible")


Source = Literal["file", "api"]
"""Where a declaration is from: the queen's files (written by the roles, or the config), or a command."""


class ServedWorker(BaseModel):
    """A worker of a declared model. `revision` is that of the declaration for which it was started."""

    model_config = ConfigDict(defer_build=True)

    node: str
    worker_id: str
    state: WorkerState
    backend: Backend
    device: int
    revision: str | None = None


class ServedInfo(BaseModel):
    """A declared model in a list.

    `place` is the file and line of one from a file, `revision` what a worker of it has that is up to date. `state` is
    in words, `reason` why it is not as declared, empty where it is.
    """

    model_config = ConfigDict(defer_build=True)

    declared: ServedModel
    source: Source
    place: str | None = None
    revision: str
    state: str
    reason: str = ""
    workers: list[ServedWorker] = Field(default_factory=list)


class ServedList(BaseModel):
    """`GET /v2/served`; `problem` is why the queen's files, as they are now, are not what it goes by."""

    model_config = ConfigDict(defer_build=True)

    served: list[ServedInfo]
    problem: str | None = None
