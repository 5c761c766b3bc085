"""What the queen tells of a model by what its hives report: state, context, capabilities."""

from __future__ import annotations

import pytest

from rbee.contracts.control import ModelsChanged, WorkerChanged, WorkerGone
from rbee.contracts.workers import WorkerState
from rbee.queen.fleet.model_lists import FleetModels
from rbee.queen.registry import CAPABILITIES_KEPT, Registry
from rbee.queen.routes.unloading import asks_to_unload
from tests.unit.queen.fleet import MODEL, entry, hello, link


def registry() -> Registry:
    """Two hives that have the model, with settings of their own."""
    made = Registry()
    for node, context in (("attic", 8192), ("cellar", 4096)):
        made.add_node(node, f"http://{node}:9200")
        model = entry().model_copy(update={"context_length": 6000})
        made.apply(node, hello(models=[model]).model_copy(update={"context_length": context}), now=1.0)
    return made


def known(made: Registry, *, starting: bool = False) -> FleetModels:
    return FleetModels(made, lambda _model: starting)


def changed(state: WorkerState, context: int = 2048) -> WorkerChanged:
    access = link("w1", state=state)
    fields = {"context_length": context, "capabilities": ["completion", "tools"]}
    return WorkerChanged(link=access.model_copy(update={"worker": access.worker.model_copy(update=fields)}))


def test_a_model_that_is_not_loaded_has_the_context_that_any_hive_would_give_it() -> None:
    """It is the least of what the hives are set to and the model was made for: a request may go to any of them."""
    listed = known(registry()).listed("bee", {MODEL}, created=0.0)

    assert (listed.state, listed.context_length, listed.train_context) == ("unloaded", 4096, 6000)
    assert listed.capabilities == ()


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (WorkerState.STARTING, "loading"),
        (WorkerState.LOADING, "loading"),
        (WorkerState.IDLE, "loaded"),
        (WorkerState.BUSY, "loaded"),
        (WorkerState.STOPPING, "unloaded"),
    ],
)
def test_a_model_is_loaded_where_a_worker_serves_it(state: WorkerState, expected: str) -> None:
    """One that is starting or stopping does not serve; the context is that of the worker that does."""
    made = registry()
    made.apply("attic", changed(state), now=2.0)

    listed = known(made).listed("bee", {MODEL}, created=0.0)

    assert listed.state == expected
    assert listed.context_length == (2048 if expected == "loaded" else 4096)
    assert listed.capabilities == ("completion", "tools")


def test_what_a_model_can_do_is_remembered_when_its_worker_is_gone() -> None:
    """The registry keeps it, and not without bound."""
    made = registry()
    made.apply("attic", changed(WorkerState.IDLE), now=2.0)
    made.apply("attic", WorkerGone(worker_id="w1", reason="idle"), now=3.0)
    made.apply("attic", ModelsChanged(models=[]), now=4.0)
    assert known(made).listed("bee", {MODEL}, created=0.0).capabilities == ("completion", "tools")

    for number in range(CAPABILITIES_KEPT + 1):
        access = link(f"x{number}", model=f"hf:bees/{number}").worker.model_copy(update={"capabilities": ["rerank"]})
        made.apply("attic", WorkerChanged(link=link(f"x{number}").model_copy(update={"worker": access})), now=5.0)
        made.apply("attic", WorkerGone(worker_id=f"x{number}", reason="idle"), now=5.0)
    made.check_invariants()


def test_a_model_that_was_never_loaded_can_do_what_its_header_says() -> None:
    """What a worker found out comes before that."""
    made = registry()
    told = [entry().model_copy(update={"capabilities": ["completion", "thinking"]})]
    for node in ("attic", "cellar"):
        made.apply(node, ModelsChanged(models=told), now=2.0)
    assert known(made).listed("bee", {MODEL}, created=0.0).capabilities == ("completion", "thinking")

    made.apply("attic", changed(WorkerState.IDLE), now=3.0)
    assert known(made).listed("bee", {MODEL}, created=0.0).capabilities == ("completion", "tools")


def test_a_model_that_is_being_started_is_loading_before_a_hive_says_so() -> None:
    """Between the order and the first report of the hive it is not said to be unloaded."""
    assert known(registry(), starting=True).listed("bee", {MODEL}, created=0.0).state == "loading"


@pytest.mark.parametrize("stays", [0, 0.0, "0s", "00", "0m", "0.0h"])
def test_an_empty_request_with_no_time_to_stay_unloads(stays: object) -> None:
    """All ways to write no time count, and only where there is nothing to answer."""
    assert asks_to_unload("/api/chat", {"keep_alive": stays, "messages": []})
    assert asks_to_unload("/api/generate", {"keep_alive": stays})
    assert not asks_to_unload("/api/generate", {"keep_alive": stays, "prompt": "x"})
    assert not asks_to_unload("/v1/completions", {"keep_alive": stays})


@pytest.mark.parametrize("stays", [None, -1, 300, "5m", False, "zero", ["0"]])
def test_any_other_time_to_stay_does_not_unload(stays: object) -> None:
    """What is no time of zero is a request like any other."""
    assert not asks_to_unload("/api/generate", {"keep_alive": stays})
