"""Keys of clients: what each may do, its limits, and what it has used."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from rbee.contracts.models import ModelText
from rbee.contracts.patterns import NAME
from rbee.contracts.tasks import Priority

MAX_MODELS = 1000

KeyText = Annotated[str, Field(pattern=NAME)]
ModelNames = Annotated[list[ModelText], Field(min_length=1, max_length=MAX_MODELS)]
Count = Annotated[int, Field(ge=1, le=10**12)]
Unix = Annotated[int, Field(ge=0, le=10**11)]


class Right(StrEnum):
    """What a key may do: run inference, or operate the fleet (nodes, references, workers, models, logs, keys)."""

    INFER = "infer"
    OPERATE = "operate"


class KeyName(BaseModel):
    """The name of a key: `POST /v2/keys/remove`."""

    # Few queens need them, none at its start.
    model_config = ConfigDict(extra="forbid", defer_build=True)

    name: KeyText


class KeySpec(KeyName):
    """A key to create: `POST /v2/keys/add`.

    `models` are names as `GET /v1/models` lists them; None means all that are declared, in a catalog, or served.
    Without a limit (None) a key may have any number of tasks at once, and use any number of tokens a day (prompt and
    answer together, by the calendar of UTC). `expires_unix` is in seconds since the epoch; None means never.
    """

    rights: list[Right] = Field(default=[Right.INFER], min_length=1, max_length=len(Right))
    models: ModelNames | None = None
    max_priority: Priority = 0
    max_tasks: Count | None = None
    tokens_per_day: Count | None = None
    expires_unix: Unix | None = None


class KeyChange(KeySpec):
    """A change of a key: `POST /v2/keys/set`. Only the fields that are there are changed; null removes a limit."""


class KeyCreated(BaseModel):
    """The response to `POST /v2/keys/add`, the only one that contains the key."""

    name: str
    key: str


class KeyInfo(KeySpec):
    """A key as lists show it; `last_used_unix` is kept to the minute, `tokens_today` is counted from midnight UTC."""

    created_unix: int
    last_used_unix: int | None = None
    requests_today: int = 0
    tokens_today: int = 0


class KeyList(BaseModel):
    """`GET /v2/keys/list`."""

    keys: list[KeyInfo]
