"""Which clients are kept from which models after crashes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rbee.contracts.control import WorkerGone
from rbee.contracts.errors import ErrorCode
from rbee.queen.client_ids import ClientIds
from rbee.queen.fleet.state import FleetState
from rbee.queen.scheduling.client_blocks import BLOCK_S, TRIES, ClientBlocks
from rbee.queen.scheduling.placement import UseWorker
from rbee.queen.scheduling.rejections import Refusal
from rbee.queen.scheduling.request import PlacementRequest
from tests.unit.queen.fleet import MODEL, hello, link


def blocks_of(*crashes: str, step_s: float = 1.0) -> ClientBlocks:
    """Record crashes of one model, each at the letters of its clients, *step_s* apart."""
    blocks = ClientBlocks()
    for number, clients in enumerate(crashes):
        blocks.record_crash("m", list(clients), "it ended by signal 11", number * step_s)
    return blocks


def test_three_crashes_under_one_client_keep_the_model_from_it_alone() -> None:
    """The third crash with nobody else at all of them blocks the client for ten minutes, and only from that model."""
    assert blocks_of("e", "e").find(["m"], "e", 2) is None
    blocks = blocks_of("e", "ea", "e")

    found = blocks.find(["m"], "e", 3)

    assert found is not None
    assert found.until == 2 + BLOCK_S
    assert found.explained() == ("3 workers crashed while its requests ran, the last one because it ended by signal 11")
    assert blocks.all(3) == [found]
    assert blocks.find(["m"], "a", 3) is None
    assert blocks.find(["other"], "e", 3) is None
    assert blocks.find(["m"], "e", 2 + BLOCK_S) is None


def test_who_only_shared_the_workers_is_not_blocked() -> None:
    """A client whose stream ran at each crash of another is not blocked for them, however many there are."""
    assert blocks_of("ea", "ea", "ea", "ea").all(4) == []
    assert [block.client for block in blocks_of("ea", "ea", "ea", "e").all(4)] == ["e"]


def test_crashes_far_apart_do_not_block() -> None:
    """Three crashes count within ten minutes only."""
    assert blocks_of("e", "e", "e", step_s=BLOCK_S / 2).all(BLOCK_S) == []


def test_a_crash_without_a_request_blames_nobody() -> None:
    """A worker that crashed while loading has no client."""
    assert blocks_of("", "", "", "e", "e").all(5) == []


def test_forgiving_and_lifting_begin_anew() -> None:
    """What is forgiven does not count for that client; a lifted model is open to everybody."""
    blocks = blocks_of("e", "e")
    blocks.forgive("m", "e", 1.5)
    blocks.record_crash("m", ["e"], "x", 2)
    assert blocks.all(3) == []

    blocks = blocks_of("e", "e", "e")
    blocks.lift(["m"])
    assert blocks.all(3) == []


@given(st.lists(st.frozensets(st.sampled_from("abcd"), max_size=4), max_size=12))
def test_one_crash_blocks_at_most_one_client(crashes: list[frozenset[str]]) -> None:
    """Whoever is blocked ran at three crashes, and no other blocked one ran at all of these."""
    blocked = blocks_of(*map("".join, crashes)).all(len(crashes))

    for block in blocked:
        at = [clients for clients in crashes if block.client in clients]
        assert len(at) >= TRIES
        assert frozenset.intersection(*at) == {block.client}


def test_the_fleet_refuses_a_blocked_client_even_a_worker_that_runs() -> None:
    """Workers of other clients are not ended by one that ended three: it gets QUARANTINED, others get the worker."""
    ids = ClientIds("secret")
    fleet = FleetState(lambda: 100.0)
    fleet.add_node("attic", "http://attic:9200")
    for number in range(TRIES):
        name = f"worker-{number}"
        fleet.apply("attic", hello(link(name), link("kept")))
        fleet.apply("attic", WorkerGone(worker_id=name, reason="x", crashed=True, clients=[ids.id("eve")]))

    eve = fleet.place(PlacementRequest(MODEL, client=ids.id("eve")))
    alice = fleet.place(PlacementRequest(MODEL, client=ids.id("alice")))

    assert isinstance(eve, Refusal)
    error = eve.error()
    assert (error.code, error.retry_after_s) == (ErrorCode.QUARANTINED, int(BLOCK_S))
    assert "is quarantined for this client for another 600 s" in error.message
    assert isinstance(alice, UseWorker)
    assert [ids.name(block.client) for block in fleet.blocks()] == ["eve"]


def test_a_worker_that_was_stopped_blames_nobody() -> None:
    """Only a crash counts, not the orderly end of a worker."""
    fleet = FleetState(lambda: 100.0)
    fleet.add_node("attic", "http://attic:9200")
    for number in range(TRIES):
        fleet.apply("attic", hello(link(f"worker-{number}")))
        fleet.apply("attic", WorkerGone(worker_id=f"worker-{number}", reason="stopped", clients=["e"]))

    assert fleet.blocks() == []


def test_ids_of_clients_are_stable_and_say_nothing() -> None:
    """An id is the same after a restart of the queen, differs between queens, and does not hold the name."""
    assert ClientIds("a").id("eve") == ClientIds("a").id("eve") != ClientIds("b").id("eve")
    assert "eve" not in ClientIds("a").id("eve")
    assert ClientIds("a").id("eve").isalnum()
