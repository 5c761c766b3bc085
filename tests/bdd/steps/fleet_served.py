"""A fleet whose inventory declares what it serves: a queen and hives on real machines, and what happens to them."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from pytest_bdd import given, parsers, then, when

from rbee.client.queen import QueenClient
from rbee.errors import RbeeError
from tests.ansible.machines import MODEL, Controller
from tests.rig import Host, Rig
from tests.support.constant_load import ConstantLoad, ask
from tests.support.waiting import eventually

QUEEN = "h1"
_WORKERS = "pgrep -fc /bin/llm-worker-rbee"


@dataclass
class ServedFleet:
    """Machines h1 (the queen's too), h2 and h3 that serve a declared model.

    `gone` are the ids of workers that ended: a list that still has one is an old one.
    """

    rig: Rig
    home: Path
    model: dict[str, Any] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)
    victim: Host | None = None
    queen_pid: str = ""
    controller: Controller = field(init=False)

    @property
    def url(self) -> str:
        """Where the queen is."""
        return f"http://{self.rig[QUEEN].address}:8080"

    @property
    def key(self) -> str:
        """The queen's key."""
        return (self.home / "secrets" / "api-key").read_text().strip()

    def declare(self, **model: Any) -> None:
        """Write the inventory with one declared model; keys that are not named stay as they were."""
        self.model.update(model)
        self.controller = Controller(self.rig, self.home, queen=True)
        self.rig.write_inventory(
            self.home / "inventory", queen=QUEEN, rbee_models=[MODEL], rbee_served_models=[self.model]
        )

    def play(self, playbook: str, **extra: object) -> None:
        """Run a playbook on all machines, or on the queen's if it is for that."""
        limit = [QUEEN] if playbook.endswith("-queen") else []
        report = self.controller.play(playbook, *limit, extra=extra).report
        assert report.succeeded, report.error() or report

    def workers(self) -> list[dict[str, Any]]:
        """List the workers that the queen knows. Raises AssertionError where it does not answer."""
        try:
            return QueenClient(self.url, self.key).workers()
        except (RbeeError, httpx.HTTPError) as error:
            raise AssertionError(f"the queen does not answer: {error}") from error

    def serving(self, name: str) -> list[dict[str, Any]]:
        """List the workers that serve a declared model."""
        return [row for row in self.workers() if row["served"] == name and row["state"] in ("idle", "busy")]

    def with_worker(self) -> Host:
        """Choose a machine that has a worker and is not the queen's; its workers are about to end."""
        node = next(row["node"] for row in self.workers() if row["node"] != QUEEN)
        self.gone |= {row["worker_id"] for row in self.workers() if row["node"] == node}
        self.victim = self.rig[node]
        return self.victim

    def pid(self, host: Host, unit: str) -> str:
        """Tell which process a unit is."""
        return host.inside("systemctl", "show", "-p", "MainPID", "--value", unit).stdout.strip()

    def kill(self, host: Host, unit: str) -> None:
        """Kill a unit's main process, and wait until there is another one."""
        before = self.pid(host, unit)
        host.inside("kill", "-KILL", before)
        eventually(lambda: self.pid(host, unit) not in ("0", before), within=10, because=f"{unit} is started again")

    def state(self, name: str) -> object:
        """Return what the queen says of a declared model."""
        try:
            headers = {"Authorization": f"Bearer {self.key}"}
            served = httpx.get(f"{self.url}/v2/served", headers=headers, trust_env=False).json()["served"]
        except httpx.HTTPError as error:
            return error
        return [(row["state"], row["reason"], row["workers"]) for row in served if row["declared"]["name"] == name]


@pytest.fixture(name="fleet", scope="module")
def fleet_that_serves(_shared_rig: Any, tmp_path_factory: pytest.TempPathFactory) -> ServedFleet:
    if _shared_rig.used:
        _shared_rig.rig.reset()
    _shared_rig.used = True
    return ServedFleet(_shared_rig.rig, tmp_path_factory.mktemp("operator"))


@pytest.fixture(name="load")
def load_by_clients(fleet: ServedFleet) -> Iterator[ConstantLoad]:
    with ConstantLoad(fleet.url, fleet.key, streams=2, model="bee") as load:
        yield load


@given(
    parsers.parse(
        'bare machines h1, h2 and h3, and an inventory that declares "{name}" with {replicas:d} replicas, '
        "{slots:d} slots and {tokens:d} tokens"
    )
)
def bare_machines(fleet: ServedFleet, name: str, replicas: int, slots: int, tokens: int) -> None:
    assert [host.name for host in fleet.rig] == ["h1", "h2", "h3"]
    fleet.declare(name=name, model=MODEL, replicas=replicas, slots=slots, context_length=tokens)


@given(parsers.parse('the fleet serves "{name}" with {count:d} workers'))
def serves(fleet: ServedFleet, name: str, count: int) -> None:
    """Install it, unless a scenario before has done so."""
    if not fleet.model:
        fleet.declare(name=name, model=MODEL, replicas=count, slots=3, context_length=2048)
        fleet.play("site")
    is_served(fleet, name, count, 2, 30)
    fleet.gone.clear()


@when(parsers.re(r'the operator plays "(?P<playbook>[\w-]+)"'))
def plays(fleet: ServedFleet, playbook: str) -> None:
    fleet.play(playbook)


@when(parsers.parse('the inventory declares {tokens:d} tokens for "{name}"'))
def declares_tokens(fleet: ServedFleet, tokens: int) -> None:
    fleet.gone |= {row["worker_id"] for row in fleet.workers()}
    fleet.queen_pid = fleet.pid(fleet.rig[QUEEN], "queen-rbee")
    fleet.declare(context_length=tokens)


@when("a worker is killed on its machine")
def worker_killed_there(fleet: ServedFleet) -> None:
    fleet.with_worker().inside("pkill", "-KILL", "-f", "/bin/llm-worker-rbee")


@when("the hive of a machine with a worker is killed")
def hive_killed_there(fleet: ServedFleet) -> None:
    fleet.kill(fleet.with_worker(), "rbee-hive")


@when("the queen is killed on its machine")
def queen_killed_there(fleet: ServedFleet) -> None:
    fleet.kill(fleet.rig[QUEEN], "queen-rbee")


@when("the queen's unit is restarted")
def queen_restarted(fleet: ServedFleet) -> None:
    fleet.rig[QUEEN].inside("systemctl", "restart", "queen-rbee")


@when("a machine with a worker is rebooted")
def rebooted(fleet: ServedFleet) -> None:
    fleet.with_worker().reboot()


@when("all machines are rebooted at once")
def all_rebooted(fleet: ServedFleet) -> None:
    fleet.gone |= {row["worker_id"] for row in fleet.workers()}
    with ThreadPoolExecutor() as pool:
        list(pool.map(Host.reboot, fleet.rig))


@when("a machine with a worker loses power")
def loses_power(fleet: ServedFleet, request: pytest.FixtureRequest) -> None:
    host = fleet.with_worker()
    request.addfinalizer(host.boot)
    host.power_cut()


@when("it has power again")
def has_power(fleet: ServedFleet) -> None:
    assert fleet.victim is not None
    fleet.victim.boot()


@when("the cable of a machine with a worker is cut for so long that another one serves")
def cable_cut(fleet: ServedFleet, request: pytest.FixtureRequest) -> None:
    host = fleet.with_worker()
    request.addfinalizer(host.mend_cable)
    host.cut_cable()
    is_served(fleet, str(fleet.model["name"]), 2, 2, 15)
    assert host.inside(*_WORKERS.split()).stdout.strip() == "1", "the worker behind the cable still runs"
    fleet.gone.clear()


@when("its cable is plugged in again")
def cable_mended(fleet: ServedFleet) -> None:
    """Plug it in and wait until the worker that was behind it counts again."""
    assert fleet.victim is not None
    fleet.victim.mend_cable()
    hives = QueenClient(fleet.url, fleet.key).hives
    node = fleet.victim.name
    eventually(
        lambda: any(hive["connected"] for hive in hives() if hive["node"] == node),
        within=12,
        because=f"the queen is connected to {node} again",
    )


@when(parsers.parse('clients keep asking for "{name}"'))
def clients_ask(load: ConstantLoad) -> None:
    eventually(lambda: load.answered, within=20, because="a first request was answered")


@then(
    parsers.re(
        r'"(?P<name>\w+)" has (?P<count>\d+) workers on (?P<machines>\d+) machines within (?P<seconds>\d+) seconds'
    ),
    converters={"count": int, "machines": int, "seconds": int},
)
def is_served(fleet: ServedFleet, name: str, count: int, machines: int, seconds: int) -> None:
    """So many serve, on so many machines, and none of those that ended is among them."""

    def there() -> bool:
        found = fleet.serving(name)
        nodes = {row["node"] for row in found}
        fresh = not fleet.gone.intersection(row["worker_id"] for row in found)
        assert (len(found), len(nodes), fresh) == (count, machines, True), fleet.state(name)
        return True

    eventually(there, within=seconds, because=f"{count} workers serve {name} on {machines} machines")


@then(parsers.parse("its workers have {slots:d} slots of {tokens:d} tokens"))
def have_settings(fleet: ServedFleet, slots: int, tokens: int) -> None:
    rows = fleet.serving(str(fleet.model["name"]))
    assert {(row["slots_total"], row["context_length"]) for row in rows} == {(slots, tokens)}


@then("nobody has asked for anything")
def nobody_asked(fleet: ServedFleet) -> None:
    headers = {"Authorization": f"Bearer {fleet.key}"}
    metrics = httpx.get(f"{fleet.url}/metrics", headers=headers, trust_env=False).raise_for_status().text
    assert "rbee_queen_tasks_total{" not in metrics


@then(parsers.parse('a request for "{name}" is answered'))
def is_answered(fleet: ServedFleet, name: str) -> None:
    answer = httpx.post(
        f"{fleet.url}/v1/chat/completions",
        json={"model": name, "messages": [{"role": "user", "content": "Name a bee."}], "max_tokens": 3},
        headers={"Authorization": f"Bearer {fleet.key}"},
        timeout=60,
        trust_env=False,
    )
    assert answer.status_code == 200, answer.text
    assert answer.json()["usage"]["completion_tokens"] > 0


@then(parsers.parse('requests for "{name}" go to all of its workers'))
def go_to_all(fleet: ServedFleet, name: str) -> None:
    """As many at once as one worker has slots, and one more."""
    before = {row["worker_id"]: row["last_active_unix"] for row in fleet.serving(name)}
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda _: ask(fleet.url, fleet.key, model=name, max_tokens=60), range(4)))

    def idle() -> list[str]:
        return [row["worker_id"] for row in fleet.serving(name) if row["last_active_unix"] == before[row["worker_id"]]]

    eventually(lambda: not idle(), within=5, because="each worker was used")


@then(parsers.parse('no other worker of "{name}" is on any machine within {seconds:d} seconds'))
def no_other(fleet: ServedFleet, name: str, seconds: int) -> None:
    wanted = sorted(row["node"] for row in fleet.serving(name))

    def counted() -> bool:
        running = [host.name for host in fleet.rig if host.inside(*_WORKERS.split(), check=False).stdout.strip() != "0"]
        assert running == wanted
        return True

    eventually(counted, within=seconds, because=f"workers run on {', '.join(wanted)} only")


@then("the queen is still the same process")
def same_queen(fleet: ServedFleet) -> None:
    assert fleet.pid(fleet.rig[QUEEN], "queen-rbee") == fleet.queen_pid


@then("every request was answered")
def all_answered(load: ConstantLoad) -> None:
    answered = load.answered
    eventually(lambda: load.answered >= answered + 2, within=20, because="requests are answered to the end")
    assert load.failures == []
