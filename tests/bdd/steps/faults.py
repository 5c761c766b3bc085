"""What goes wrong on a machine, and what is reported of it."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

import httpx
import pytest
from pytest_bdd import given, parsers, then

from rbee import __version__
from rbee.worker.engine.llama import Llama
from tests.bdd.steps.daemons import HIVE_KEY, HiveUnderTest, queen_key
from tests.bdd.steps.machine import called_bee
from tests.bdd.steps.workers import listed
from tests.support.commands import Result
from tests.support.gguf_files import write_gguf
from tests.support.machine import Machine
from tests.support.nvml import Gpu, Gpus, Mode
from tests.support.waiting import eventually, slowness

MIB = 1024 * 1024


@given(parsers.parse("two GPUs of {total:d} MB with {used:d} MB in use"))
def two_gpus(machine: Machine, total: int, used: int) -> None:
    gpu = Gpu(total_mb=total, used_mb=used)
    machine.env.update(Gpus.build(machine.root, gpu, gpu).environ())


@given(parsers.parse("another program holds {held:d} MB of each GPU"))
def foreign_memory(machine: Machine, held: int) -> None:
    gpu = Gpu(used_mb=held + 512)
    Gpus(machine.root / "nvml").set(gpu, gpu, graphics={os.getpid(): held})


@given(parsers.re(r"two GPUs whose driver (?P<fault>hangs|fails|has another version than its library)"))
def broken_driver(machine: Machine, fault: str) -> None:
    modes: dict[str, Mode] = {"hangs": "hang", "fails": "error", "has another version than its library": "mismatch"}
    machine.env.update(Gpus.build(machine.root, mode=modes[fault]).environ())
    if fault == "hangs":  # any other answers, on a slow machine after more than that
        machine.configure("hive", detect_timeout_s=2)


@given("a llama.cpp without CUDA")
def without_cuda() -> None:
    if Llama().supports_gpu():
        pytest.skip("the llama.cpp that is installed here can use a GPU")


@then("no worker has loaded the model")
def never_loaded(machine: Machine) -> None:
    workers = {name: text for name, text in machine.logs().items() if name.startswith("worker-")}
    assert workers, machine.logs()
    assert '"message": "model loaded"' not in "".join(workers.values()), workers


@given(parsers.parse("bee is a file of {size:d} MiB"), target_fixture="model")
def model_of_size(machine: Machine, size: int) -> str:
    return called_bee(machine, write_gguf(machine.root / "sized.gguf", size=size * MIB))


@given(parsers.parse("loading bee stops after {loaded:d} of {layers:d} layers"))
def fake_hangs(machine: Machine, loaded: int, layers: int) -> None:
    machine.fake(load_hangs_at=(loaded + 1) / layers)


@given("the worker of bee crashes at the first token")
def fake_dies_at_once(machine: Machine) -> None:
    machine.fake(exit_after=0)


@given(parsers.parse("the hive program is of version {version}"))
def hive_version(machine: Machine, version: str) -> None:
    """Make Python set the version in every process that runs as rbee-hive, before anything of it is imported."""
    folder = machine.root / "another-version"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(
        "import sys\n"
        "if any('rbee-hive' in part for part in sys.orig_argv[:3]):\n"
        "    import rbee\n"
        f"    rbee.__version__ = {version!r}\n"
    )
    machine.env["PYTHONPATH"] = str(folder)


@given(parsers.parse("the hive waits {seconds:d} seconds for a queen"), target_fixture="pace")
def fence(machine: Machine, seconds: int) -> float:
    """Have it wait longer on a slow machine, where a queen comes back later; give how much longer."""
    pace = slowness()
    machine.configure("hive", fence_after_s=seconds * pace)
    return pace


@given("a queen and a hive that it did not start")
def queen_with_hive(machine: Machine, hive: HiveUnderTest) -> None:
    machine.configure("queen", local_hive=False)
    hive.start()
    result = machine.run("rbee-keeper", "daemon", "start")
    assert result.code == 0, result
    node = {"node_name": "attic", "ssh_host": "127.0.0.1", "hive_port": machine.hive_port, "hive_key": HIVE_KEY}
    answer = httpx.post(
        f"http://127.0.0.1:{machine.queen_port}/v2/registry/beehives/add",
        json=node,
        headers={"Authorization": f"Bearer {queen_key(machine)}"},
        timeout=60,
        trust_env=False,
    )
    assert answer.is_success, answer.text


@given("a worker of that hive", target_fixture="worker_pid")
def worker_of_attic(machine: Machine, model: str) -> int:
    result = machine.run("rbee-keeper", "worker", "start", "--node", "attic", "--model", model)
    assert result.code == 0, result
    return int(machine.process("llm-worker-rbee").pid)


@then(parsers.re(r"the worker of that hive still serves (?P<seconds>\d+) seconds? later"))
def still_serves(hive: HiveUnderTest, worker_pid: int, pace: float, seconds: str) -> None:
    until = time.monotonic() + int(seconds) * pace

    def has_lasted() -> bool:
        rows = [(row["pid"], row["state"]) for row in hive.workers()]
        if rows != [(worker_pid, "idle")]:
            pytest.fail(f"the worker {worker_pid} did not stay: {rows}")
        return time.monotonic() >= until

    eventually(has_lasted, within=int(seconds) * pace + 5, because="the time has passed")


@then("the worker of that hive is the same process as before")
def same_worker(machine: Machine, worker_pid: int) -> None:
    assert [(row["pid"], row["node"]) for row in listed(machine)] == [(worker_pid, "attic")]


@then(parsers.re(r"the hive has started (?P<count>\d+) workers? in all"))
def started_in_all(hive: HiveUnderTest, count: str) -> None:
    assert hive_log(hive).count('"worker started"') == int(count), hive_log(hive)


@then(parsers.parse("the hive's log says that no queen was heard for {seconds:d} seconds"))
def fence_logged(hive: HiveUnderTest, pace: float, seconds: int) -> None:
    found = re.search(r"no queen has been connected for (\d+) s", hive_log(hive))
    assert found, hive_log(hive)
    assert seconds * pace - 1 <= int(found[1]) <= seconds * pace + 2 * slowness()


def hive_log(hive: HiveUnderTest) -> str:
    assert hive.running is not None
    return Path(hive.running.stderr).read_text()


@then(parsers.parse("the keeper reports {count:d} download attempts in order, each with its reason"))
def reports_attempts(result: Result, count: int) -> None:
    attempts = re.findall(r"download attempt (\d+) of (\d+): (.+)", result.stderr)
    assert [(int(number), int(of)) for number, of, _ in attempts] == [(n, count) for n in range(1, count + 1)], result
    assert all(reason.strip() for _, _, reason in attempts), result


@then(parsers.parse("the keeper says that more than {need:d} MB are needed and {have:d} MB are free"))
def says_memory(result: Result, need: int, have: int) -> None:
    found = re.search(r"needs (\d+) MB.* has (\d+) MB free", result.stderr)
    assert found, result
    assert int(found[1]) > need, result
    assert int(found[2]) == have, result


@then("the keeper reports in this order")
def reports_in_order(result: Result, datatable: list[list[str]]) -> None:
    position = 0
    for (text,) in datatable[1:]:
        found = result.stderr.find(text, position)
        assert found >= 0, f"'{text}' does not come after the others: {result}"
        position = found


@then("the keeper says its own version")
def says_own_version(result: Result) -> None:
    assert re.search(rf"(?<![\d.]){re.escape(__version__)}(?![\d.]*\d)", result.stderr), result
