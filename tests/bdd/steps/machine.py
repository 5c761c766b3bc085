"""Machines, their settings, and the processes on them."""

from __future__ import annotations

import json
import os
import signal
import tomllib
from pathlib import Path

import psutil
import pytest
from pytest_bdd import given, parsers, then, when

from tests.support.gguf_files import write_gguf
from tests.support.machine import Machine
from tests.support.models import smollm2_path, smollm2_q8_path
from tests.support.waiting import eventually, slowness


@given("a machine", target_fixture="model")
def a_machine(machine: Machine) -> str:
    return "demo"


@given("a machine without a config file", target_fixture="model")
def a_machine_without_config(machine: Machine) -> str:
    machine.writes_config = False
    return "demo"


def called_bee(machine: Machine, path: Path) -> str:
    """Name a model file "bee" in the config, and return its reference."""
    reference = f"file://{path}"
    machine.configure("models", bee=reference)
    return reference


@given('a machine with the model "bee"', target_fixture="model")
def a_machine_with_bee(machine: Machine) -> str:
    """Write a model that the fake engine pretends to run."""
    machine.configure("worker", engine="fake")
    return called_bee(machine, write_gguf(machine.root / "tiny.gguf"))


@given("a machine with a running queen", target_fixture="model")
@given("a running queen")
def a_running_queen(machine: Machine) -> str:
    result = machine.run("rbee-keeper", "daemon", "start")
    assert result.code == 0, result
    return "demo"


@given(parsers.parse("bee writes {rate:d} tokens per second"))
def fake_speed(machine: Machine, rate: int) -> None:
    machine.fake(tokens_per_s=rate)


@given(parsers.parse("bee takes {seconds:d} seconds to load"))
def fake_load(machine: Machine, seconds: int) -> None:
    machine.fake(load_s=seconds * slowness())


@given(parsers.parse("workers have {count:d} slot"))
def slots(machine: Machine, count: int) -> None:
    machine.configure("hive", slots=count)


@given(parsers.parse("the hive stops workers that were idle for {seconds:d} seconds"))
def idle_timeout(machine: Machine, seconds: int) -> None:
    machine.configure("hive", idle_timeout_s=seconds)


@given(parsers.parse("the hive checks workers every {seconds:d} second"))
def health_interval(machine: Machine, seconds: int) -> None:
    machine.configure("hive", health_interval_s=seconds)


@given(parsers.parse("the hive gives a worker {seconds:d} seconds to load"))
def loading_timeout(machine: Machine, seconds: int) -> None:
    machine.configure("hive", loading_timeout_s=seconds)


@given("a PID file of a queen that is gone")
def stale_pid_file(machine: Machine) -> None:
    gone = psutil.Popen(["true"])
    gone.wait()
    run = machine.home / "run"
    run.mkdir()
    (run / "queen-rbee.pid").write_text(f"{gone.pid}\n")


@given(parsers.parse('the variable "{name}" is "{value}"'))
def variable(machine: Machine, name: str, value: str) -> None:
    machine.env[name] = value


@given(parsers.parse('the config file has the line "{line}"'))
def config_line(machine: Machine, line: str) -> None:
    key, value = next(iter(tomllib.loads(line).items()))
    machine.configure("", **{key: value})


@given("bee needs more memory than there is", target_fixture="model")
def greedy_model(machine: Machine) -> str:
    path = write_gguf(machine.root / "greedy.gguf", layers=400, embedding=32768, heads=128, context=131072)
    return called_bee(machine, path)


@given(parsers.re(r'the demo model quantised as (?P<quantisation>Q4_1|Q8_0) is called "bee"'), target_fixture="model")
def quantised(machine: Machine, quantisation: str) -> str:
    return called_bee(machine, {"Q4_1": smollm2_path, "Q8_0": smollm2_q8_path}[quantisation]())


@given(parsers.re(r"bee is a file that is (?P<fault>not GGUF|empty|truncated|missing)"), target_fixture="model")
def faulty_model(machine: Machine, fault: str) -> str:
    path = machine.root / "faulty.gguf"
    whole = write_gguf(machine.root / "whole.gguf").read_bytes()
    content = {"not GGUF": b"this is no model" * 100, "empty": b"", "truncated": whole[: len(whole) // 2]}
    if fault != "missing":
        path.write_bytes(content[fault])
    return called_bee(machine, path)


@given(
    parsers.parse("config files with different addresses of the queen in every place from {first} on"),
    target_fixture="addresses",
)
def config_files(machine: Machine, first: str) -> dict[str, str]:
    places = {
        "variable": machine.root / "named.toml",
        "xdg": machine.user_home / ".config" / "rbee" / "config.toml",
        "rbee-home": machine.home / "config.toml",
    }
    names = list(places)[list(places).index(first) :]
    addresses = {name: f"http://127.0.0.1:{port}" for name, port in zip(names, range(1, 4), strict=False)}
    for name, address in addresses.items():
        places[name].parent.mkdir(parents=True, exist_ok=True)
        places[name].write_text(f'queen_url = "{address}"\n')
    if "variable" in addresses:
        machine.env["RBEE_CONFIG"] = str(places["variable"])
    return addresses


@when(parsers.re(r"the (?P<program>rbee-keeper|queen-rbee|rbee-hive|llm-worker-rbee) is killed"))
def killed(machine: Machine, program: str) -> None:
    found = machine.processes(program)
    assert found, f"no {program} runs that could be killed"
    for process in found:
        process.send_signal(signal.SIGKILL)


@when("the llm-worker-rbee is frozen")
def frozen(machine: Machine, request: pytest.FixtureRequest) -> None:
    process = machine.process("llm-worker-rbee")
    process.suspend()

    def thaw() -> None:
        if process.is_running():
            process.resume()

    request.addfinalizer(thaw)


@then(parsers.parse("no process of rbee is left within {seconds:d} seconds"))
def nothing_left(machine: Machine, seconds: int) -> None:
    eventually(lambda: not machine.processes(), within=seconds, because="every process of rbee has ended")


@then(parsers.re(r"the (?P<programs>[a-z, -]+) are gone within (?P<seconds>\d+) seconds"))
def programs_gone(machine: Machine, programs: str, seconds: str) -> None:
    names = [name.strip() for name in programs.split(",")]
    eventually(
        lambda: not any(machine.processes(name) for name in names),
        within=int(seconds),
        because=f"{programs} have ended",
    )


@then(parsers.re(r"there (is|are) (?P<count>\d+) process(es)? of (?P<program>[a-z-]+)"))
def process_count(machine: Machine, count: str, program: str) -> None:
    eventually(
        lambda: len(machine.processes(program)) == int(count),
        within=2,
        because=f"{count} processes of {program} run",
    )


@then("one queen was started")
def one_queen(machine: Machine) -> None:
    starts = [line for line in machine.log("queen-rbee.log").splitlines() if json.loads(line)["message"] == "serving"]
    assert len(starts) == 1


@when("the operator installs rbee for the system below another root", target_fixture="result")
def install_system(machine: Machine) -> object:
    return machine.run("rbee-keeper", "install", "--system", "--root", str(machine.root / "system"))


@then("the programs, the config and the data folder are where the system keeps them")
def system_paths(machine: Machine) -> None:
    root = machine.root / "system"
    assert os.access(root / "usr/local/bin/rbee-keeper", os.X_OK)
    tomllib.loads((root / "etc/rbee/config.toml").read_text())
    assert (root / "var/lib/rbee").is_dir()


@then(parsers.parse('the program "{program}" runs from the user\'s path'))
def user_program(machine: Machine, program: str) -> None:
    path = machine.user_home / ".local" / "bin" / program
    assert psutil.Popen([str(path), "--version"], stdout=-3).wait(30) == 0


@then("the user has a valid config file")
def user_config(machine: Machine) -> None:
    result = machine.run("rbee-keeper", "config", "check")
    assert result.code == 0, result


@then("the queen, the hive and the worker are the same processes as before")
def same_processes(machine: Machine, before: set[int]) -> None:
    assert {process.pid for process in machine.processes()} == before
    assert len(before) == 3
