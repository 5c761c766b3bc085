"""The page in a browser, commands on a terminal, and a Prometheus with the rules and the dashboard."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator

import httpx
from pytest_bdd import given, parsers, then, when

from tests.bdd.steps.clients import queen_of
from tests.console.browser import browse, node_modules
from tests.monitoring.prometheus import FILES, programs_of_debian, prometheus, values
from tests.support.commands import Result
from tests.support.machine import Machine
from tests.support.terminal import Terminal
from tests.support.waiting import eventually


@then("a browser that opens the link shows")
def views_show(result: Result, datatable: list[list[str]]) -> None:
    steps = []
    for view, text in datatable[1:]:
        steps += [("view", view.lower()), ("sees", text), ("text", "header nav a[aria-current]")]
    found = browse(node_modules(), result.stdout.strip(), *steps)
    assert found["texts"] == [view for view, _ in datatable[1:]]


@when(parsers.parse('the model "{model}" is declared as "{name}" on the page that the link opens'))
def declared_on_page(machine: Machine, result: Result, model: str, name: str) -> None:
    steps = [("fills", "Name", name), ("fills", "Model", machine.tables["models"][model]), ("fills", "Workers", "0")]
    opens = [("view", "models"), ("opens", "Declare a model")]
    browse(node_modules(), result.stdout.strip(), *opens, *steps, ("click", "Declare"), ("sees", "on demand"))


@when(parsers.parse('the operator opens "{command}" on a terminal'), target_fixture="terminal")
def on_terminal(machine: Machine, command: str) -> Iterator[Terminal]:
    with Terminal(machine, *shlex.split(command)) as terminal:
        yield terminal


@when(parsers.parse('types "{line}" on the terminal'))
def types(terminal: Terminal, line: str) -> None:
    terminal.shows("> ")
    terminal.types(f"{line}\n")


@when(parsers.re(r"the operator presses Ctrl-(?P<letter>[CD]) on the terminal"))
def presses(terminal: Terminal, letter: str) -> None:
    if letter == "C":
        terminal.interrupt()
    else:
        terminal.types("\x04")


@then(parsers.parse('the terminal shows "{text}"'))
def terminal_shows(terminal: Terminal, text: str) -> None:
    eventually(lambda: text in terminal.text, within=15, because=f"{text!r} is on the terminal")


@then(parsers.parse("the command on the terminal ends with code {code:d}"))
def terminal_ends(terminal: Terminal, code: int) -> None:
    assert terminal.ended() == code, terminal.text
    assert "Traceback" not in terminal.text


@given("a Prometheus that watches the queen with the rules of rbee", target_fixture="asks")
def watching(machine: Machine) -> Iterator[httpx.Client]:
    queen = queen_of(machine)
    with prometheus(programs_of_debian(), machine.root / "prometheus", {"rbee-queen": (queen.url, queen.key)}) as asks:
        eventually(lambda: values(asks, 'up{job="rbee-queen"}') == [1.0], within=30, because="the queen is scraped")
        yield asks


@then(parsers.parse('the alert "{name}" says "{text}" within {seconds:d} seconds'))
def alert_says(asks: httpx.Client, name: str, text: str, seconds: int) -> None:
    def told() -> bool:
        alerts = asks.get("/api/v1/alerts").json()["data"]["alerts"]
        return any(
            alert["labels"]["alertname"] == name
            and alert["state"] == "firing"
            and text in alert["annotations"]["description"]
            for alert in alerts
        )

    eventually(told, within=seconds, because=f"{name} fires")


@then(parsers.parse('Prometheus answers each panel of the dashboard, and "{title}" with {value:d}'))
def panels_answered(asks: httpx.Client, title: str, value: int) -> None:
    panels = json.loads((FILES / "rbee.dashboard.json").read_text())["panels"]
    asked = {
        panel["title"]: [target["expr"].replace("$__rate_interval", "1m") for target in panel["targets"]]
        for panel in panels
    }
    for expressions in asked.values():
        for expression in expressions:
            values(asks, expression)
    eventually(lambda: values(asks, asked[title][0]) == [value], within=10, because=f"{title} is {value}")
