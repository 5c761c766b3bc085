"""Decide what a key allows. Pure.

What a client may name is declared: aliases, and what is in a catalog or served. References, nodes, devices and
backends are the operator's: naming one makes a machine fetch, read and run it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from rbee.contracts.errors import ErrorCode
from rbee.contracts.keys import Right
from rbee.contracts.tasks import TaskRequest
from rbee.daemonkit.auth import Caller
from rbee.errors import RbeeError

DAY_S: Final = 86_400
HIGHEST_PRIORITY: Final = 10


@dataclass(frozen=True, slots=True)
class Client(Caller):
    """A caller with what its key allows; None means no limit. `models` are names, as the client says them."""

    rights: frozenset[Right] = frozenset({Right.INFER})
    models: frozenset[str] | None = None
    max_priority: int = 0
    max_tasks: int | None = None
    tokens_per_day: int | None = None

    @property
    def operates(self) -> bool:
        """Return whether it may do what only an operator may."""
        return Right.OPERATE in self.rights

    @property
    def limited(self) -> bool:
        """Return whether its requests must be counted, and therefore pass through the queen."""
        return self.max_tasks is not None or self.tokens_per_day is not None


ADMIN: Final = Client("operator", frozenset(Right), max_priority=HIGHEST_PRIORITY)
"""The holder of the queen's own key."""


def require(client: Client, right: Right, action: str) -> None:
    """Raise RbeeError FORBIDDEN if the client lacks *right* for *action*, such as "naming a node"."""
    if right not in client.rights:
        raise RbeeError(
            ErrorCode.FORBIDDEN,
            f"{action[0].upper()}{action[1:]} needs the right '{right}', which the key of {client.name} does not have.",
            details={"right": right.value, "client": client.name},
        )


def check_model(client: Client, name: str, aliases: Mapping[str, str]) -> None:
    """Raise RbeeError FORBIDDEN if *name* is none of the models that the key is limited to.

    What an alias stands for is the model that it names: the keeper sends that. The answer is the same whether there is
    such a model or not.
    """
    if client.models is None or name in client.models:
        return
    if all(aliases.get(allowed) != name for allowed in client.models):
        listed = ", ".join(sorted(client.models))
        raise RbeeError(
            ErrorCode.FORBIDDEN,
            f"The key of {client.name} may not use the model {name[:200]!r}; it may use: {listed}.",
            param="model",
            details={"client": client.name, "models": sorted(client.models)},
        )


def check_placement(client: Client, named: Collection[str]) -> None:
    """Raise RbeeError FORBIDDEN if the client says where its request runs; *named* are the fields it says it by."""
    if named:
        require(client, Right.OPERATE, f"choosing where a request runs ({', '.join(sorted(named))})")


def placement_fields(request: TaskRequest) -> list[str]:
    """List the fields of *request* that say where it runs."""
    return [name for name in ("node", "backend", "device") if getattr(request, name) is not None]


def check_priority(client: Client, requested: int | None) -> int:
    """Return the priority of a request, 0 or what the key allows where none was requested.

    Raises RbeeError FORBIDDEN for one above the highest of the key.
    """
    if requested is None:
        return min(0, client.max_priority)
    if requested > client.max_priority:
        raise RbeeError(
            ErrorCode.FORBIDDEN,
            f"Priority {requested} is above {client.max_priority}, the highest that the key of {client.name} allows.",
            param="priority",
            details={"client": client.name, "max_priority": client.max_priority},
            hint="Ask with a lower priority, or ask the operator: rbee-keeper keys set NAME --priority N",
        )
    return requested


def check_limits(client: Client, *, tasks: int, tokens_today: int, now: float) -> RbeeError | None:
    """Return why the client may not have one more task, or None where it may.

    Args:
        tasks: those of the client that have not ended.
        tokens_today: what it used since midnight UTC.
        now: seconds since the epoch.
    """
    if client.max_tasks is not None and tasks >= client.max_tasks:
        return RbeeError(
            ErrorCode.TOO_MANY_REQUESTS,
            f"{client.name} has {tasks} tasks, as many as its key allows at once.",
            details={"client": client.name, "tasks": tasks, "max_tasks": client.max_tasks},
        )
    if client.tokens_per_day is not None and tokens_today >= client.tokens_per_day:
        left = DAY_S - int(now % DAY_S)
        return RbeeError(
            ErrorCode.TOO_MANY_REQUESTS,
            f"{client.name} has used {tokens_today} tokens today, and its key allows {client.tokens_per_day} a day; "
            f"the next day begins in {left} s (midnight UTC).",
            details={"client": client.name, "tokens_today": tokens_today, "tokens_per_day": client.tokens_per_day},
            retry_after_s=left,
        )
    return None
