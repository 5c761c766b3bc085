"""What holds for every test: a clean environment, known tags, and no skip that hides."""

from __future__ import annotations

import os
import platform
import re
import signal
from collections.abc import Generator
from importlib.metadata import version
from pathlib import Path

import pytest

# Steps and helpers are not test modules: without this their asserts fail without detail.
pytest.register_assert_rewrite("tests.bdd.steps", "tests.support")

# Real machines by the fixture `rig`, for tests of every kind.
pytest_plugins = ["tests.rig.fixtures"]

FEATURES = Path(__file__).parents[1] / "features"
# The ids that features/README.md lists, in its order.
BEHAVIOURS = re.findall(r"^\| (B\d+) \|", (FEATURES / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
_UNSET = ("RBEE_", "HF_", "HUGGING_FACE_", "NVML_STUB_")
# Compute threads spin while they wait for each other, and beside other tests they wait for most of the time: with two
# an answer takes three times the processor time of one. Who asks for more says so.
_THREADS = "RBEE_WORKER_THREADS"
_KEPT = ("RBEE_TEST_", _THREADS)
_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")


def pytest_configure(config: pytest.Config) -> None:
    """Register the ids of the promised behaviours, which scenarios carry as tags, and hear Ctrl-C again.

    Workers, also those of daemons on other machines of the same test, compute with one thread.
    """
    _unignore_signals()
    # Here rather than in a fixture: some workers serve a whole module.
    os.environ[_THREADS] = "1"
    for behaviour in BEHAVIOURS:
        config.addinivalue_line("markers", f"{behaviour}: the behaviour of this number")


def _unignore_signals() -> None:
    """Give signals that were ignored at the start their usual meaning, which the programs under test then inherit.

    A shell starts what a script leaves in the background with SIGINT and SIGQUIT ignored.
    """
    for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGQUIT, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, usual)


def pytest_itemcollected(item: pytest.Item) -> None:
    """Run the tests of a module with the real model in one process, in their order.

    The model is loaded once, and what its caches hold, by which the last digits of its numbers differ, is the same in
    every run.
    """
    if item.get_closest_marker("engine") is not None and item.get_closest_marker("rig") is None:
        item.add_marker(pytest.mark.xdist_group(item.path.stem))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the tests on real machines, which run in one process for half of the time, then the other long ones.

    A process that is given a long test at the end leaves the others with nothing to do.
    """
    items.sort(key=lambda item: (item.get_closest_marker("rig") is None, item.get_closest_marker("slow") is None))


def pytest_report_header() -> list[str]:
    """Name the versions that explain a difference between two machines."""
    shown = ("llama-cpp-python", "starlette", "uvicorn", "pydantic", "huggingface-hub")
    versions = ", ".join(f"{name} {version(name)}" for name in shown)
    return [f"rbee {version('rbee')} on {platform.platform()}, {os.cpu_count()} cores: {versions}"]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn a skip into a failure for the markers that `RBEE_TEST_REQUIRE` lists, such as "process,engine"."""
    report = yield
    required = {name for name in os.environ.get("RBEE_TEST_REQUIRE", "").split(",") if name}
    if report.skipped and not hasattr(report, "wasxfail"):
        needs = {marker.name for marker in item.iter_markers()}
        # What needs a GPU is demanded where there is one, whatever else it needs.
        missed = required & ({"gpu"} if "gpu" in needs else needs)
        if missed or "all" in required:
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
            report.outcome = "failed"
            report.longrepr = f"{reason} (RBEE_TEST_REQUIRE={os.environ['RBEE_TEST_REQUIRE']} allows no skip here)"
    return report


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Hide the developer's own settings, keys and proxies; every test has a home of its own."""
    for name in list(os.environ):
        if (name.startswith(_UNSET) and not name.startswith(_KEPT)) or name in _PROXIES:
            monkeypatch.delenv(name)
    monkeypatch.setenv("RBEE_HOME", str(tmp_path / "rbee-home"))
