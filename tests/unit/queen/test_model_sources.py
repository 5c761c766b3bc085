"""Where a node gets a model from: whoever has it, the origin once, or whoever is getting it."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from rbee.contracts.models import CatalogEntry
from rbee.contracts.queen import ModelList
from rbee.contracts.references import Provider
from rbee.queen.fleet.catalogs import merge
from rbee.queen.fleet.model_sources import COPIES_AT_ONCE, Fetch, Wait, decide, shared_reference
from rbee.queen.hive import Hive

MODEL = "hf:bees/tiny"
ENTRY = CatalogEntry(
    id="tiny-1234abcd",
    provider=Provider.HF,
    reference=MODEL,
    local_path="/models/tiny.gguf",
    size_bytes=100,
    sha256="0" * 64,
    downloaded_at_unix=1,
)


def hive(node: str, *models: CatalogEntry, url: str = "", connected: bool = True, closing: bool = False) -> Hive:
    return Hive(node, url or f"http://{node}:9200", connected=connected, closing=closing, models=models, listed=True)


def names(decision: Fetch | Wait) -> list[str]:
    assert isinstance(decision, Fetch)
    return [source.node for source in decision.sources]


def test_what_no_node_has_comes_from_its_origin() -> None:
    """The first node that wants a model asks its origin."""
    assert decide("h1", MODEL, [hive("h1"), hive("h2")], {}) == Fetch()


def test_what_a_node_has_it_needs_from_nobody() -> None:
    """A node that has the model itself waits for nobody, whoever copies it."""
    assert decide("h1", MODEL, [hive("h1", ENTRY), hive("h2", ENTRY)], {"h2": None}) == Fetch()


@pytest.mark.parametrize(
    "other",
    [
        hive("h2", ENTRY, connected=False),
        hive("h2", ENTRY, closing=True),
        hive("h2", ENTRY.model_copy(update={"problem": "it is gone"})),
        hive("h2", ENTRY.model_copy(update={"sha256": None})),
        hive("h2", ENTRY.model_copy(update={"reference": "hf:bees/other"})),
        hive("h2", ENTRY, url="http://127.0.0.1:9200"),
        hive("h2", ENTRY, url="http://localhost:9200"),
    ],
    ids=["not connected", "ending", "file gone", "no checksum", "another model", "of this machine", "by name"],
)
def test_only_who_can_give_it_is_asked(other: Hive) -> None:
    """A hive that is not there, or only for its own machine, and a model that is not sound, are no source."""
    assert decide("h1", MODEL, [hive("h1"), other], {}) == Fetch()


def test_hives_of_one_machine_reach_each_other() -> None:
    """Two hives that the queen has on its own machine copy from each other."""
    local = hive("a", ENTRY, url="http://127.0.0.1:1"), hive("b", url="http://[::1]:2")

    assert names(decide("b", MODEL, local, {})) == ["a"]


def test_the_least_busy_is_asked_first() -> None:
    """Of several that have it, those come first that send it to the fewest; the others are there if it fails."""
    hives = [hive("h1"), hive("h2", ENTRY), hive("h3", ENTRY), hive("h4"), hive("h5")]

    assert names(decide("h1", MODEL, hives, {})) == ["h2", "h3"]
    assert names(decide("h1", MODEL, hives, {"h4": "h2"})) == ["h3", "h2"]
    assert names(decide("h1", MODEL, hives, {}, {"h2"})) == ["h3"]


def test_a_node_waits_for_whoever_fetches_it() -> None:
    """While another node fetches the model, nobody asks the origin again; who cannot be served by that one does."""
    hives = [hive("h1"), hive("h2"), hive("here", url="http://127.0.0.1:1")]

    assert decide("h1", MODEL, hives, {"h2": None}) == Wait("h2", "h2 fetches it; it comes from there")
    assert decide("h1", MODEL, hives, {"here": None}) == Fetch()
    assert decide("here", MODEL, hives, {"h2": None}) == Wait("h2", "h2 fetches it; it comes from there")
    assert decide("h1", MODEL, [hive("h1"), hive("h2", connected=False)], {"h2": None}) == Fetch()


def test_a_source_that_is_busy_is_waited_for() -> None:
    """A node sends a model to a few at once; the next waits for one of them, which is then a source too."""
    nodes = [hive(f"n{number}") for number in range(COPIES_AT_ONCE + 1)]
    under_way: dict[str, str | None] = {f"n{number}": "h1" for number in range(COPIES_AT_ONCE)}

    decision = decide(f"n{COPIES_AT_ONCE}", MODEL, [hive("h1", ENTRY), *nodes], under_way)

    assert decision == Wait("n0", "h1 sends it to others now; it comes from there next")


def test_only_models_of_the_world_are_shared() -> None:
    """A file or a package of a machine is that machine's; an address is known by its shown form."""
    assert shared_reference("hf:bees/tiny:q4_k_m") == "hf:bees/tiny:Q4_K_M"
    assert (shared_reference("https://a.example/x.gguf?token=secret") or "").startswith("https://a.example/x.gguf?mask")
    assert shared_reference("file:///models/x.gguf") is None
    assert shared_reference("package:a/b.gguf") is None
    assert shared_reference("nonsense") is None


@pytest.mark.parametrize("seed", range(20))
def test_a_fleet_fetches_once_whatever_the_order(seed: int) -> None:
    """However many nodes want a model, and in whatever order they are done: one asks the origin, and all have it."""
    chance = random.Random(seed)
    hives = {f"h{number}": hive(f"h{number}") for number in range(chance.randint(2, 40))}
    wanting, under_way, fetched, rounds = set(hives), dict[str, str | None](), 0, 0
    while wanting or under_way:
        rounds += 1
        for node in chance.sample(sorted(wanting), len(wanting)):
            decision = decide(node, MODEL, list(hives.values()), under_way)
            if isinstance(decision, Fetch):
                under_way[node] = decision.sources[0].node if decision.sources else None
                fetched += not decision.sources
                wanting.discard(node)
            else:
                assert decision.node in under_way
        for source in hives:
            assert sum(given == source for given in under_way.values()) <= COPIES_AT_ONCE
        for node in list(under_way):
            del under_way[node]
            hives[node] = replace(hives[node], models=(ENTRY,))

    assert fetched == 1
    # Each round triples those that have it.
    assert rounds <= 6


def test_a_model_of_several_nodes_is_one_row() -> None:
    """Copies are one row, whose problem is one of all copies; other bytes of the same reference are another row."""
    gone = ENTRY.model_copy(update={"problem": "it is gone", "local_path": "/a"})
    newer = ENTRY.model_copy(update={"sha256": "1" * 64})
    lists = {node: ModelList(models=[entry]) for node, entry in {"h1": gone, "h2": ENTRY, "h3": newer}.items()}

    first, second = merge(lists).models

    assert [(copy.node, copy.problem) for copy in first.nodes] == [("h1", "it is gone"), ("h2", None)]
    assert (first.problem, first.local_path) == (None, "/models/tiny.gguf")
    assert [copy.node for copy in second.nodes] == ["h3"]
    assert merge({"h1": ModelList(models=[gone])}).models[0].problem == "it is gone"
