"""What happens to machines that have hives: cables, plugs, and a queen that is no longer heard."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_bdd import given, parsers, then, when

from rbee.client.queen import QueenClient
from tests.bdd.steps.fleet import NO_PROCESS, Operator
from tests.bdd.steps.hub import FILE, MIB, REPO
from tests.support.commands import Result, Running
from tests.support.gguf_files import write_gguf
from tests.support.hub import Hub, Slow
from tests.support.waiting import eventually

SHARED = "bees/shared-GGUF"
_HUB = "/etc/systemd/system/rbee-hive.service.d/hub.conf"
_WORKERS = "pgrep -f /bin/llm-worker-rbee"


def queen_of(operator: Operator) -> QueenClient:
    """Return a client of the operator's queen."""
    key = (operator.machine.home / "secrets" / "api-key").read_text().strip()
    return QueenClient(f"http://127.0.0.1:{operator.machine.queen_port}", key)


def is_connected(operator: Operator, name: str) -> bool:
    """Return whether the queen is connected to a machine's hive."""
    return any(hive["connected"] for hive in queen_of(operator).hives() if hive["node"] == name)


@given(parsers.parse("the hive of {name} waits {seconds:d} seconds for a queen"))
def short_fence(operator: Operator, name: str, seconds: int, request: pytest.FixtureRequest) -> None:
    def wait(length: int) -> None:
        operator.shell(name, f"sed -i 's/^fence_after_s = .*/fence_after_s = {length}/' /etc/rbee/hive.toml")
        operator.restart(name)

    request.addfinalizer(lambda: wait(60))
    wait(seconds)


@when(parsers.parse("the cable of {name} is cut"))
def cut(operator: Operator, name: str, request: pytest.FixtureRequest) -> None:
    request.addfinalizer(operator.host(name).mend_cable)
    operator.host(name).cut_cable()


@when(parsers.parse("the cable of {name} is plugged in again"))
def plugged_in(operator: Operator, name: str) -> None:
    operator.host(name).mend_cable()


@when(parsers.parse("the power of {name} is cut"))
def power_cut(operator: Operator, name: str, request: pytest.FixtureRequest) -> None:
    request.addfinalizer(operator.host(name).boot)
    operator.host(name).power_cut()


@when(parsers.parse("the power of {name} is back"))
def power_back(operator: Operator, name: str) -> None:
    operator.host(name).boot()


@pytest.fixture(name="machines_hub")
def hub_of_the_machines(operator: Operator) -> Iterator[Hub]:
    """Yield a hub that machines reach."""
    with Hub(operator.rig.controller) as hub:
        yield hub


@given(parsers.parse("the hive of {name} downloads from a slow hub"))
def slow_hub(operator: Operator, name: str, machines_hub: Hub, request: pytest.FixtureRequest) -> None:
    machines_hub.add(REPO, FILE, write_gguf(operator.machine.root / "machines.gguf", size=60 * MIB).read_bytes())
    machines_hub.fail(REPO, FILE, Slow(bytes_per_s=5 * MIB), times=None)
    send_to_hub(operator, name, machines_hub, request)


def send_to_hub(operator: Operator, name: str, machines_hub: Hub, request: pytest.FixtureRequest) -> None:
    """Have a hive take the hub of the rig for that of the world, until the end of the scenario."""
    variables = machines_hub.environ(Path("/var/lib/rbee"))
    lines = ["[Service]", *(f"Environment={variable}={value}" for variable, value in variables.items())]
    operator.host(name).write_file(_HUB, "\n".join(lines) + "\n")
    operator.shell(name, "systemctl daemon-reload")
    operator.restart(name)

    def forget() -> None:
        operator.shell(name, f"rm -r {Path(_HUB).parent}; systemctl daemon-reload")
        operator.restart(name)

    request.addfinalizer(forget)


@given("the hives of h1 and h2 download from the same hub")
def same_hub(operator: Operator, machines_hub: Hub, request: pytest.FixtureRequest) -> None:
    machines_hub.add(SHARED, FILE, write_gguf(operator.machine.root / "machines.gguf", size=60 * MIB).read_bytes())
    for name in ("h1", "h2"):
        send_to_hub(operator, name, machines_hub, request)


@given(parsers.parse("the hive of {name} sends {rate:d} megabits per second"))
def sends_slowly(operator: Operator, name: str, rate: int, request: pytest.FixtureRequest) -> None:
    def forget() -> None:
        operator.shell(name, "sed -i '/^share_mbps/d' /etc/rbee/hive.toml")
        operator.restart(name)

    request.addfinalizer(forget)
    operator.shell(name, f"sed -i '/^.hive.$/a share_mbps = {rate}' /etc/rbee/hive.toml")
    operator.restart(name)


@then("h2 has the model, of which the hub sent the rest only")
def the_rest_only(operator: Operator, machines_hub: Hub) -> None:
    content = (operator.machine.root / "machines.gguf").read_bytes()
    found = operator.shell("h2", f"sha256sum /var/lib/rbee/models/hf/{SHARED}/{FILE}")
    assert found.split()[0] == hashlib.sha256(content).hexdigest()
    whole, rest = machines_hub.downloads(SHARED, FILE)
    assert whole.bytes_sent == len(content)
    assert rest.bytes_sent <= len(content) - 24 * MIB


@then("the shared model is one row, on h1 and h2")
def one_row(result: Result) -> None:
    (row,) = [row for row in result.json["models"] if row["reference"] == f"hf:{SHARED}"]
    assert [copy["node"] for copy in row["nodes"]] == ["h1", "h2"]


@when("the hub is no longer slow")
def fast_hub(machines_hub: Hub) -> None:
    machines_hub.heal(REPO, FILE)


@when(parsers.parse("the operator starts to pull the hub's model to {name}"))
def starts_to_pull(operator: Operator, name: str) -> None:
    operator.machine.start("rbee-keeper", "models", "pull", "--node", name, f"hf:{REPO}")


@when(parsers.parse("at least {size:d} MiB of it have reached {name}"), target_fixture="downloaded")
def downloaded_so_far(operator: Operator, size: int, name: str) -> int:
    def there() -> int | None:
        output = operator.shell(name, "find /var/lib/rbee/models -name '*.part' -exec stat -c %s {} +")
        return int(output) if output and int(output) >= size * MIB else None

    return eventually(there, within=60, because=f"{size} MiB have come") or 0


@then(parsers.parse("at most {size:d} MiB were downloaded twice"))
def downloaded_twice(machines_hub: Hub, downloaded: int, size: int) -> None:
    last = machines_hub.ranges(REPO, FILE)[-1]
    assert last is not None, "it was downloaded from the beginning"
    assert int(last.removeprefix("bytes=").split("-")[0]) >= downloaded - size * MIB


@when(parsers.parse("the operator asks {name} for a long answer"), target_fixture="running")
def long_answer(operator: Operator, name: str) -> Running:
    command = f"rbee-keeper infer --node {name} --model demo --prompt 'Tell a long story.' --max-tokens 2000"
    return operator.machine.start(*shlex.split(command))


@when(parsers.parse("the operator notes the worker of {name}"), target_fixture="noted")
def notes_worker(operator: Operator, name: str) -> tuple[str, str]:
    (row,) = queen_of(operator).workers(name)
    return str(row["worker_id"]), operator.host(name).inside(*_WORKERS.split()).stdout


@then(parsers.parse("{name} has the noted worker and no other"))
def same_worker(operator: Operator, name: str, noted: tuple[str, str]) -> None:
    assert notes_worker(operator, name) == noted


@then(parsers.parse("no worker runs on {name} within {seconds:d} seconds"))
def fenced(operator: Operator, name: str, seconds: int) -> None:
    eventually(
        lambda: operator.host(name).inside(*_WORKERS.split(), check=False).code == NO_PROCESS,
        within=seconds,
        because="the hive has stopped its workers",
    )


@then(
    parsers.re(r"the queen is (?P<how>connected|no longer connected) to (?P<name>h\d) within (?P<seconds>\d+) seconds")
)
def connection(operator: Operator, how: str, name: str, seconds: str) -> None:
    eventually(
        lambda: is_connected(operator, name) == (how == "connected"),
        within=int(seconds),
        because=f"the queen is {how} to {name}",
    )


@then("the operator can stop the queen")
def can_stop_queen(operator: Operator) -> None:
    result = operator.type("rbee-keeper daemon stop")
    assert result.code == 0, result
