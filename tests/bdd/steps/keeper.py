"""What an operator types, and what is seen on the terminal."""

from __future__ import annotations

import re
import shlex
import signal
from pathlib import Path

from pytest_bdd import given, parsers, then, when

from tests.support.commands import Result, Running
from tests.support.machine import Machine
from tests.support.waiting import eventually, slowness


@when(parsers.parse('the operator runs "{command}"'), target_fixture="result")
@when(parsers.parse('another operator runs "{command}"'), target_fixture="result")
def operator_runs(machine: Machine, command: str) -> Result:
    return machine.run(*shlex.split(command))


@when(parsers.parse('the operator runs "{command}" twice'), target_fixture="results")
def operator_runs_twice(machine: Machine, command: str) -> list[Result]:
    return [machine.run(*shlex.split(command)) for _ in range(2)]


@when(parsers.parse('two operators run "{command}" at once'), target_fixture="results")
def two_operators(machine: Machine, command: str) -> list[Result]:
    running = [machine.start(*shlex.split(command)) for _ in range(2)]
    return [each.wait(60) for each in running]


@when(parsers.parse('the operator starts "{command}"'), target_fixture="running")
def operator_starts(machine: Machine, command: str) -> Running:
    return machine.start(*shlex.split(command))


@when("the operator presses Ctrl-C")
def ctrl_c(running: Running) -> None:
    running.signal(signal.SIGINT)


@when("the first tokens have arrived")
def first_tokens(running: Running) -> None:
    def arrived() -> bool:
        assert running.process.poll() is None, running.stderr.read_text()
        return len(running.stdout.read_text()) > 5

    eventually(arrived, within=30, because="the first tokens are on standard output")


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


@then(parsers.parse("the answer has at least {count:d} words"))
def answer_words(result: Result, count: int) -> None:
    assert len(result.stdout.split()) >= count, result


@then(parsers.parse('the output shows "{text}"'))
def output_shows(result: Result, text: str) -> None:
    assert text in result.stdout, result


@then("nothing that the keeper says is in the answer")
def answer_is_data(result: Result) -> None:
    said = [line.strip() for line in result.stderr.splitlines() if line.strip()]
    assert said, result
    assert [line for line in said if line in result.stdout] == [], result


@then(parsers.parse('the keeper says "{text}"'))
def keeper_says(result: Result, text: str) -> None:
    assert text in result.stderr, result


@then(parsers.parse('the keeper does not say "{text}"'))
def keeper_does_not_say(result: Result, text: str) -> None:
    assert text not in result.stderr, result


@then("the keeper reports on the queen, the hive, the worker and the model")
def reports_actors(result: Result) -> None:
    for actor in ("queen", "hive", "worker", "SmolLM2"):
        assert actor in result.stderr, f"{actor}: {result}"


@then("the keeper reports a preflight")
def reports_preflight(result: Result) -> None:
    assert "preflight" in result.stderr, result


@then("the keeper reports no preflight")
def no_preflight(result: Result) -> None:
    assert "preflight" not in result.stderr, result


@then("the keeper shows how many layers are loaded")
def shows_layers(result: Result) -> None:
    assert re.search(r"\d+ of \d+ layers", result.stderr), result


@then("the keeper shows the progress in MB and percent")
def shows_progress(result: Result) -> None:
    assert re.search(r"\d+ ?%", result.stderr), result
    assert re.search(r"\d+\.\d MB of \d+\.\d MB", result.stderr), result


@then(parsers.parse("the keeper reports {count:d} retries, each with the slots in use"))
def reports_retries(result: Result, count: int) -> None:
    retries = re.findall(r"all slots are busy \(1 of 1\);.*retry (\d+) of (\d+)", result.stderr)
    assert retries == [(str(attempt), str(count)) for attempt in range(1, count + 1)], result


@then("the keeper says how many MB are needed and how many are free")
def says_need(result: Result) -> None:
    found = re.search(r"needs (\d+) MB.* has (\d+) MB free", result.stderr)
    assert found, result
    assert int(found[1]) > int(found[2]), result


@then("the keeper names a file with the partial answer")
def partial_text(machine: Machine, result: Result) -> None:
    found = re.search(rf"{re.escape(str(machine.home))}/partial/[^\s'\"]+", result.stderr)
    assert found, result
    assert Path(found[0].rstrip(".")).read_text().strip() == result.stdout.strip()


@then("the keeper names the config file and the line")
def names_config_line(machine: Machine, result: Result) -> None:
    assert re.search(rf"{re.escape(str(machine.home / 'config.toml'))}:\d+", result.stderr), result


@then("the keeper names the worker's log file")
def names_worker_log(machine: Machine, result: Result) -> None:
    assert re.search(rf"{re.escape(str(machine.home / 'logs'))}/worker-[^\s'\"]+\.log", result.stderr), result


@then("the keeper names the model file")
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
    assert result.json["queen_url"]["value"] == addresses[first], result


@when(parsers.parse('the output has a line of "{source}"'))
def output_has(running: Running, source: str) -> None:
    eventually(lambda: source in running.stdout.read_text(), within=10, because=f"a line of {source} was printed")


@then(parsers.parse("the output gets a line of the worker within {seconds:d} seconds"))
def output_gets_worker(running: Running, seconds: int) -> None:
    eventually(lambda: "worker-" in running.stdout.read_text(), within=seconds, because="the worker's log is printed")
