"""Commands for several nodes at once, or for the hives of a group."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.support.keeper import rbee
from tests.support.stand_in_queen import StandInQueen, event, refusal

pytestmark = pytest.mark.process
INVENTORY = """\
all:
  children:
    rbee_hives:
      hosts:
        h1: {ansible_host: 192.0.2.1, ansible_user: me}
        h2: {ansible_host: 192.0.2.2, ansible_user: me}
        h3: {ansible_host: 192.0.2.3, ansible_user: me}
    gpu:
      hosts:
        h1:
        h3:
"""


def nodes_asked(queen: StandInQueen, method: str, path: str) -> list[str]:
    """Return the nodes that a route was asked for, in order."""
    return [parse_qs(urlsplit(seen.path).query)["node"][0] for seen in queen.requests(method, path)]


def test_several_nodes_are_done_one_after_the_other(queen: StandInQueen) -> None:
    """Each has its part of the output below its name; with --json it is a document each."""
    queen.answer("GET", "/v2/models/show", {"reference": "hf:a/b"})

    shown = rbee("models", "show", "--node", "h1,h2", "hf:a/b")
    data = rbee("models", "show", "--node", "h2,h1", "hf:a/b", "--json")

    assert shown.stdout.splitlines() == ["h1:", "reference  hf:a/b", "h2:", "reference  hf:a/b"]
    assert nodes_asked(queen, "GET", "/v2/models/show") == ["h1", "h2", "h2", "h1"]
    assert data.stdout.count('"reference"') == 2
    assert "h1:" not in data.stdout


def test_models_of_several_nodes_are_one_list(queen: StandInQueen) -> None:
    """A model is one row, with the nodes that have it; without --node it is the fleet's; who is silent is named."""
    copies = [
        {"node": "h1", "local_path": "/m/b.gguf", "downloaded_at_unix": 1},
        {"node": "h2", "local_path": "/m/b.gguf", "downloaded_at_unix": 1, "problem": "it is gone"},
    ]
    row = {"reference": "hf:a/b", "size_bytes": 94_000_000, "downloaded_at_unix": 1, "nodes": copies}
    download = {"reference": "hf:a/c", "stage": "downloading", "node": "h3", "source": "h1"}
    silent = {"node": "h4", "reason": "no connection"}
    queen.answer("GET", "/v2/models/list", {"models": [row], "downloads": [download], "unreachable": [silent]})

    fleet, data = rbee("models", "list"), rbee("models", "list", "--json")
    named = rbee("models", "list", "--node", "h1,h2", "--node", "h4")

    lines = fleet.stdout.splitlines()
    assert lines[0].split() == ["MODEL", "SIZE", "QUANTIZATION", "CONTEXT", "DOWNLOADED", "NODES"]
    assert lines[1].startswith("hf:a/b  94.0 MB")
    assert lines[1].endswith("h1, h2 [it is gone]")
    assert "downloading from h1" in lines[2]
    assert lines[2].endswith("h3")
    assert "the hive on h4 does not answer: no connection" in fleet.stderr
    assert (fleet.code, named.code) == (0, 1)
    assert data.json["models"] == [row]
    asked = [urlsplit(seen.path).query for seen in queen.requests("GET", "/v2/models/list")]
    assert asked == ["", "", "node=h1&node=h2&node=h4"]


def test_where_one_node_fails_the_others_are_done(queen: StandInQueen) -> None:
    """The failure is told where it happens, and the exit code is 1."""
    queen.answer("DELETE", "/v2/models", refusal("MODEL_NOT_FOUND", "h1 has no such model."), status=404)
    queen.answer("DELETE", "/v2/models", None)

    removed = rbee("models", "rm", "--node", "h1", "--node", "h2", "demo")

    assert removed.code == 1
    assert "h1 has no such model." in removed.stderr
    assert "from h2" in removed.stdout
    assert nodes_asked(queen, "DELETE", "/v2/models") == ["h1", "h2"]


def test_a_group_is_its_hives(queen: StandInQueen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The machines of a group are those of the inventory; one that is not there is named."""
    inventory = tmp_path / "hosts.yml"
    inventory.write_text(INVENTORY)
    monkeypatch.setenv("RBEE_INVENTORY", str(inventory))
    queen.stream("GET", "/v2/logs", event({"source": "rbee-hive", "line": "serving"}), event("[DONE]"))

    logs = rbee("logs", "--group", "gpu")
    unknown = rbee("logs", "--group", "cpu")

    assert logs.stdout.splitlines() == ["h1:", "rbee-hive  serving", "h3:", "rbee-hive  serving"]
    assert unknown.code == 1
    assert "no group 'cpu'" in unknown.stderr


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("logs", "--node", "h1,h2", "--follow"), "--follow takes one node at a time"),
        (("logs",), "Give --node NAME[,NAME] or --group NAME."),
        (("worker", "start", "--model", "demo"), "Give --node NAME[,NAME] or --group NAME."),
        (("models", "list", "--node", "h1,,h2"), "names are separated by single commas"),
    ],
)
def test_what_cannot_be_meant_is_a_wrong_usage(queen: StandInQueen, arguments: tuple[str, ...], reason: str) -> None:
    """A command that needs a node says so, and one that does not end is for one node only."""
    refused = rbee(*arguments)

    assert refused.code == 2
    assert reason in refused.stderr
    assert queen.requests("GET", "/v2/logs") == []
