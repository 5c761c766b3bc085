"""How the machines of the inventory come to a queen."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from rbee.config.paths import Paths
from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError
from rbee.fleet.inventory import Node
from rbee.keeper.fleet.registration import register


class Queen:
    """A queen that takes everything but nodes of these names."""

    def __init__(self, *bad: str) -> None:
        self.bad = bad
        self.calls: list[list[str]] = []

    def add_node(self, spec: dict[str, Any]) -> None:
        self.add_nodes([spec])

    def add_nodes(self, specs: list[dict[str, Any]]) -> None:
        names = [spec["node_name"] for spec in specs]
        self.calls.append(names)
        if found := [name for name in names if name in self.bad]:
            rows = [{"node": name, "reason": "ssh_host: not a host name"} for name in found]
            raise RbeeError(ErrorCode.INVALID_REQUEST, "No node was added.", details={"nodes": rows})


@pytest.mark.parametrize(
    ("bad", "calls"),
    [
        ((), [["h1", "h2", "h3"]]),
        (("h2",), [["h1", "h2", "h3"], ["h1", "h3"]]),
        (("h1", "h2", "h3"), [["h1", "h2", "h3"]]),
    ],
    ids=["all", "but one", "none"],
)
def test_machines_are_registered_in_one_call_without_those_that_are_refused(
    bad: tuple[str, ...], calls: list[list[str]], tmp_path: Path
) -> None:
    """What a queen does not take keeps no other machine out, and is still an error."""
    settings, queen = cast("Any", SimpleNamespace(paths=Paths(tmp_path))), Queen(*bad)
    nodes = [Node(name, host=f"10.0.0.{number}") for number, name in enumerate(("h1", "h2", "h3"))]

    with pytest.raises(RbeeError, match="No node was added") if bad else nullcontext():
        register(settings, cast("Any", queen), nodes)

    assert queen.calls == calls
