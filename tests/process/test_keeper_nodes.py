"""Commands for several nodes at once, or for the hives of a group."""

from __future__ import annotations

from collections.abc import Iterator
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


@pytest.fixture
def queen(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandInQueen]:
    with StandInQueen() as queen:
        for name, value in queen.environ().items():
            monkeypatch.setenv(name, value)
        yield queen


def nodes_asked(queen: StandInQueen, method: str, path: str) -> list[str]:
    """Return the nodes that a route was asked for, in order."""
    return [parse_qs(urlsplit(seen.path).query)["node"][0] for seen in queen.requests(method, path)]


def test_several_nodes_are_done_one_after_the_other(queen: StandInQueen) -> None:
    """Each has its part of the output below its name; with --json it is a document each."""
    queen.answer("GET", "/v2/models/list", {"models": []})

    listed, data = rbee("models", "list", "--node", "h1,h2"), rbee("models", "list", "--node", "h2,h1", "--json")

    assert listed.stdout.splitlines() == ["h1:", "h2:"]
    assert [line for line in listed.stderr.splitlines() if "No models on" in line] != []
    assert nodes_asked(queen, "GET", "/v2/models/list") == ["h1", "h2", "h2", "h1"]
    assert data.stdout.count('"models"') == 2
    assert "h1:" not in data.stdout


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
