"""One queen whose model calls a tool and then answers, the programs that talk to it, and a table of what they did."""

from __future__ import annotations

import importlib.metadata
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from tests.chat.answers import TEMPLATES
from tests.clients import installation
from tests.support.gguf_files import write_gguf
from tests.support.machine import Machine
from tests.support.queens import QueenProcess, machine_with_fake

MODEL: Final = "bee"
# The agents' instructions and tools alone take thousands of words.
CONTEXT: Final = 65_536
# The tools of the agents, and the one of our programs: what the model calls each with.
CALLS: Final[dict[str, dict[str, Any]]] = {
    "exec_command": {"cmd": "echo honey > bees.txt"},
    "bash": {"command": "echo honey > bees.txt", "description": "Write honey"},
    "count_bees": {"hive": "north", "hours": 3},
}
_TABLE: Final = pytest.StashKey[list[tuple[str, str, str, float]]]()


@dataclass(frozen=True)
class Service:
    """What a client is told of the service."""

    url: str
    key: str

    @property
    def env(self) -> dict[str, str]:
        """Return the environment of a program of ours, or of a configuration."""
        return {"HOST_URL": self.url, "BASE_URL": f"{self.url}/v1", "RBEE_KEY": self.key, "MODEL": MODEL}


def _call(name: str, arguments: dict[str, Any]) -> str:
    call = json.dumps({"name": name, "arguments": arguments})
    return f"<think>\nA tool can do it.\n</think>\n\nI call it.\n<tool_call>\n{call}\n</tool_call>"


def _replies() -> dict[str, str]:
    """Return the answers by what is in a prompt of Qwen3's template: the outcome of a call goes before the tools."""
    calls = {f'"name": "{name}"': _call(name, arguments) for name, arguments in CALLS.items()}
    return {"<tool_response>": "<think>\nIt is done.\n</think>\n\nIt is done.", **calls}


@pytest.fixture(scope="module", name="service")
def _service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    fake = {
        "template": TEMPLATES.source("Qwen-Qwen3-0.6B"),
        "replies": _replies(),
        # What is asked without a tool: an object of a schema.
        "text": '{"hives": 3}',
        "length": 2,
        "context": CONTEXT,
    }
    with machine_with_fake(tmp_path_factory.mktemp("queen"), **fake) as machine:
        yield _serve(machine)


def _serve(machine: Machine) -> Service:
    write_gguf(machine.root / "model.gguf", context=CONTEXT)
    machine.configure("hive", context_length=CONTEXT)
    machine.tables["models"][MODEL] = f"file://{machine.root / 'model.gguf'}"
    queen = QueenProcess(machine)
    return Service(queen.url, queen.client("program").headers["Authorization"].removeprefix("Bearer "))


@pytest.fixture(scope="session", name="node_modules")
def _node_modules() -> Path:
    return installation.node_modules()


@pytest.fixture(scope="session", name="client_python")
def _client_python() -> Path:
    return installation.python()


def _version(name: str) -> str:
    """Return the version of a client, from where it is pinned."""
    packages = json.loads((installation.PROGRAMS / "package.json").read_text(encoding="utf-8"))["dependencies"]
    pins = dict(re.findall(r"^(\S+)==(\S+)", (installation.PROGRAMS / "requirements.txt").read_text(), re.MULTILINE))
    return str(packages.get(name) or pins.get(name) or importlib.metadata.version(name))


def pytest_configure(config: pytest.Config) -> None:
    """Begin the table."""
    config.stash[_TABLE] = []


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Keep what became of a client, once: of its setup where that ended it, else of its call."""
    report: pytest.TestReport = yield  # type: ignore[assignment]
    marker = item.get_closest_marker("client")
    if marker is not None and (report.when == "call" or (report.when == "setup" and not report.passed)):
        name, did = marker.args
        row = (f"{name} {_version(name)}", did, report.outcome, report.duration)
        item.config.stash[_TABLE].append(row)
    return report  # type: ignore[return-value]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the table where one process ran all tests: `make clients`."""
    if table := config.stash.get(_TABLE, []):
        terminalreporter.section("clients")
        for client, did, outcome, seconds in table:
            terminalreporter.line(f"{client:<28}{did:<68}{outcome:<8}{seconds:6.1f} s")
