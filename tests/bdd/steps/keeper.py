"""What an operator types, and what is seen on the terminal."""

from __future__ import annotations

import re
import shlex
import signal
from pathlib import Path
from typing import Any

import pytest
from pytest_bdd import given, parsers, then, when

from tests.support.commands import Result, Running
from tests.support.machine import Machine
from tests.support.waiting import eventually, slowness


def words(command: str, model: str, hub_model: str = "") -> list[str]:
    return shlex.split(command.replace("{model}", model).replace("{hub_model}", hub_model))


@pytest.fixture
def hub_model() -> str:
    return ""


@when(parsers.parse('the operator runs "{command}"'), target_fixture="result")
@when(parsers.parse('another operator runs "{command}"'), target_fixture="result")
def operator_runs(machine: Machine, model: str, hub_model: str, command: str) -> Result:
    return machine.run(*words(command, model, hub_model))


@when(parsers.parse('the operator runs "{command}" twice'), target_fixture="results")
def operator_runs_twice(machine: Machine, model: str, command: str) -> list[Result]:
    return [machine.run(*words(command, model)) for _ in range(2)]


@when(parsers.parse('two operators run "{command}" at once'), target_fixture="results")
def two_operators(machine: Machine, model: str, hub_model: str, command: str) -> list[Result]:
    running = [machine.start(*words(command, model, hub_model)) for _ in range(2)]
    return [each.wait(60) for each in running]


@when(parsers.parse('the operator starts "{command}"'), target_fixture="running")
def operator_starts(machine: Machine, model: str, command: str) -> Running:
    return machine.start(*words(command, model))


@when("the operator presses Ctrl-C")
def ctrl_c(running: Running) -> None:
    running.signal(signal.SIGINT)


@when("some tokens have come")
def some_tokens(running: Running) -> None:
    def came() -> bool:
        assert running.process.poll() is None, running.stderr.read_text()
        return len(running.stdout.read_text()) > 5

    eventually(came, within=30, because="the first tokens are on standard output")


@when(parsers.parse("the operator runs the demo model with a prompt of {count:d} words"), target_fixture="result")
def long_prompt(machine: Machine, count: int) -> Result:
    return machine.run("rbee-keeper", "infer", "--model", "demo", "--prompt", "-", stdin="bee " * count)


@when("the operator stops the worker by its id", target_fixture="result")
def stop_worker(machine: Machine) -> Result:
    worker = machine.run("rbee-keeper", "worker", "list", "--json").json["workers"][0]
    return machine.run("rbee-keeper", "worker", "stop", "--id", worker["worker_id"])


@given(parsers.parse('the operator uses the key "{key}"'))
def uses_key(machine: Machine, key: str) -> None:
    machine.env["RBEE_API_KEY"] = key


@then(parsers.parse("the exit code is {code:d}"))
def exit_code(result: Result, code: int) -> None:
    assert result.code == code, result


@then(parsers.parse("it ends with code {code:d} within {seconds:d} seconds"), target_fixture="result")
def ends_with(running: Running, code: int, seconds: int) -> Result:
    result = running.wait(seconds)
    assert result.code == code, result
    return result


@then("both exit codes are 0")
def both_done(results: list[Result]) -> None:
    for result in results:
        assert result.code == 0, result


@then("both answers are the same")
def same_answers(results: list[Result]) -> None:
    assert results[0].code == 0, results[0]
    assert results[0].stdout.strip()
    assert results[0].stdout == results[1].stdout


@then(parsers.parse("it took less than {seconds:d} seconds"))
def took_less(result: Result, seconds: int) -> None:
    assert result.seconds < seconds * slowness(), result


@then(parsers.parse("standard output has at least {count:d} words"))
def stdout_words(result: Result, count: int) -> None:
    assert len(result.stdout.split()) >= count, result


@then(parsers.parse('standard output says "{text}"'))
def stdout_says(result: Result, text: str) -> None:
    assert text in result.stdout, result


@then("standard output says nothing of queens, hives and workers")
def stdout_is_data(result: Result) -> None:
    assert not re.search(r"queen|hive|worker", result.stdout), result


@then(parsers.parse('standard error says "{text}"'))
def stderr_says(result: Result, text: str) -> None:
    assert text in result.stderr, result


@then(parsers.parse('standard error does not say "{text}"'))
def stderr_does_not_say(result: Result, text: str) -> None:
    assert text not in result.stderr, result


@then("standard error tells of the queen, the hive, the worker and the model")
def story(result: Result) -> None:
    for actor in ("queen", "hive", "worker", "SmolLM2"):
        assert actor in result.stderr, f"{actor}: {result}"


@then("standard error tells of the preflight")
def tells_preflight(result: Result) -> None:
    assert "preflight" in result.stderr, result


@then("standard error does not tell of the preflight")
def no_preflight(result: Result) -> None:
    assert "preflight" not in result.stderr, result


@then("standard error tells of layers loaded")
def tells_layers(result: Result) -> None:
    assert re.search(r"\d+ ?(/|of) ?\d+ layers", result.stderr), result


@then("standard error tells of bytes and percent")
def tells_bytes(result: Result) -> None:
    assert re.search(r"\d+ ?%", result.stderr), result
    assert re.search(r"\d+(\.\d+)? ?(MB|MiB|kB|KiB)", result.stderr), result


@then(parsers.parse("standard error tells of {count:d} retries with the slots in use"))
def tells_retries(result: Result, count: int) -> None:
    for attempt in range(1, count + 1):
        assert re.search(rf"\b{attempt} of {count}\b", result.stderr), result
    assert re.search(r"slots are busy \(1 of 1\)", result.stderr), result


@then("standard error gives the next step")
def tells_next_step(result: Result) -> None:
    assert "rbee-keeper" in result.stderr or "try again" in result.stderr.lower(), result


@then("standard error gives need and have in MB")
def tells_need(result: Result) -> None:
    assert re.search(r"\d+ MB.*\d+ MB", result.stderr), result


@then("standard error names a file with the partial text")
def partial_text(machine: Machine, result: Result) -> None:
    found = re.search(rf"{re.escape(str(machine.home))}/partial/[^\s'\"]+", result.stderr)
    assert found, result
    assert Path(found[0].rstrip(".")).read_text().strip() == result.stdout.strip()


@then("standard error names the config file and a line")
def names_config_line(machine: Machine, result: Result) -> None:
    assert re.search(rf"{re.escape(str(machine.home / 'config.toml'))}:\d+", result.stderr), result


@then("standard error names the log of the worker")
def names_worker_log(machine: Machine, result: Result) -> None:
    assert re.search(rf"{re.escape(str(machine.home / 'logs'))}/worker-[^\s'\"]+\.log", result.stderr), result


@then("standard error names the model file")
def names_model(result: Result) -> None:
    assert "faulty.gguf" in result.stderr, result


@then(parsers.parse('the JSON field "{field}" is "{value}"'))
def json_field(result: Result, field: str, value: str) -> None:
    assert result.json[field] == value, result


@then(parsers.parse("the JSON list of {name} is empty"))
def json_list_empty(result: Result, name: str) -> None:
    assert result.json[name] == [], result


@then(parsers.parse("the address of the queen comes from {first}"))
def address_from(result: Result, addresses: dict[str, str], first: str) -> None:
    shown: dict[str, Any] = result.json
    assert addresses[first] in str(shown), result
    for name, address in addresses.items():
        assert name == first or address not in str(shown), result


@then(parsers.parse('the output has a line of "{source}"'))
@when(parsers.parse('the output has a line of "{source}"'))
def output_has(running: Running, source: str) -> None:
    eventually(lambda: source in running.stdout.read_text(), within=10, because=f"a line of {source} was printed")


@then(parsers.parse("the output gets a line of the worker within {seconds:d} seconds"))
def output_gets_worker(running: Running, seconds: int) -> None:
    eventually(lambda: "worker-" in running.stdout.read_text(), within=seconds, because="the worker's log is printed")
