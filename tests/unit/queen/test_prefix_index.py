"""What workers have read, and what placement makes of it."""

from __future__ import annotations

import heapq
import random
from collections import Counter, OrderedDict
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbee.queen.registry import Registry
from rbee.queen.scheduling.placement import Decision, Fleet, UseWorker, place
from rbee.queen.scheduling.prefix_index import BLOCK_CHARS, MAX_HASHES, PrefixHashes, PrefixIndex, prefix_hashes
from rbee.queen.scheduling.request import PlacementRequest
from tests.unit.queen.fleet import MODEL, VERSION, hello, link

SLOTS = 4


def registry_of(workers: int) -> Registry:
    registry = Registry(VERSION)
    registry.add_node("attic", "http://attic:9200")
    registry.apply("attic", hello(*(link(f"w{number:02}", free=SLOTS) for number in range(workers))), now=0.0)
    return registry


def used(decision: Decision) -> UseWorker:
    assert isinstance(decision, UseWorker), decision
    return decision


def text(name: str, blocks: int) -> str:
    return (f"{name} " * BLOCK_CHARS)[: BLOCK_CHARS * blocks]


def test_a_longer_conversation_begins_with_the_marks_of_the_shorter() -> None:
    """The marks of a conversation are those of its earlier turns and some more; others have none of them."""
    admission_queue = [{"role": "user", "content": text("bee", 3)}]
    longer = [*admission_queue, {"role": "assistant", "content": text("hive", 3)}]

    short, long = prefix_hashes({"messages": admission_queue}), prefix_hashes({"messages": longer})
    other = prefix_hashes({"messages": [{"role": "user", "content": text("wasp", 3)}]})

    assert len(short) >= 3
    assert long[: len(short)] == short
    assert len(long) > len(short)
    assert not set(other) & set(long)


def test_a_prompt_without_end_has_an_end() -> None:
    """Of a prompt of megabytes only the beginning counts."""
    assert len(prefix_hashes({"prompt": "x" * 4_000_000})) == MAX_HASHES
    assert prefix_hashes({"model": "bee"}) == ()


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5), st.integers(1, 6), st.booleans()), min_size=1, max_size=60)
)
def test_what_is_remembered_never_contradicts_itself(steps: list[tuple[int, int, int, bool]]) -> None:
    """Whatever is read and forgotten in whatever order, both sides of the table agree, and it stays bounded."""
    prefixes = PrefixIndex()
    for worker, conversation, length, gone in steps:
        if gone:
            prefixes.forget(f"w{worker}")
        else:
            prefixes.remember(f"w{worker}", tuple(conversation * 100 + n for n in range(length)), slots=2)
        prefixes.check_invariants()

    assert all(len(conversations) <= 2 for conversations in prefixes.conversations().values())


def test_depths_are_those_of_the_longest_common_beginning() -> None:
    """Each worker is told with as much as it has read, however its conversations go on."""
    prefixes = PrefixIndex()
    prefixes.remember("a", (1, 2, 3, 99), slots=SLOTS)
    prefixes.remember("b", (1, 98), slots=SLOTS)
    prefixes.remember("c", (97,), slots=SLOTS)

    assert prefixes.match_lengths((1, 2, 3, 4)) == {"a": 3, "b": 1}
    assert set(prefixes.sticky_workers((1, 98, 4))) == {"b"}
    assert set(prefixes.sticky_workers((1, 2, 3, 4))) == set()


@dataclass
class Simulation:
    """Workers whose slots keep the conversations that they read last, and the queen's view of them."""

    workers: int
    prefixes: PrefixIndex = field(default_factory=PrefixIndex)
    running: Counter[str] = field(default_factory=Counter)
    served: Counter[str] = field(default_factory=Counter)
    ends: list[tuple[float, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.registry = registry_of(self.workers)
        self.kept: dict[str, OrderedDict[int, None]] = {
            worker.worker_id: OrderedDict() for worker in self.registry.workers()
        }

    def at(self, now: float) -> None:
        while self.ends and self.ends[0][0] <= now:
            worker_id = heapq.heappop(self.ends)[1]
            self.running[worker_id] -= 1
            self.registry.index.end(worker_id)

    def ask(self, conversation: int, hashes: PrefixHashes, until: float) -> bool | None:
        """Place one request; tells whether its conversation was in a slot there, None if it must wait."""
        use = used(place(Fleet(self.registry, self.prefixes), PlacementRequest(MODEL, prefix_hashes=hashes)))
        if not use.free:
            return None
        worker_id = use.link.worker.worker_id
        self.running[worker_id] += 1
        self.served[worker_id] += 1
        heapq.heappush(self.ends, (until, worker_id))
        self.prefixes.remember(worker_id, hashes, slots=SLOTS)
        self.registry.index.begin(worker_id)
        self.registry.index.hold(worker_id, len(self.prefixes.conversations().get(worker_id, ())))
        kept = self.kept[worker_id]
        hit = conversation in kept
        kept.pop(conversation, None)
        while len(kept) >= SLOTS:
            kept.popitem(last=False)
        kept[conversation] = None
        return hit


@pytest.mark.parametrize("shared_blocks", [2, 12])
@pytest.mark.parametrize("conversations", [4, 8, 12])
def test_conversations_stay_where_they_are_cached(conversations: int, shared_blocks: int) -> None:
    """Conversations of many turns over 4 workers find at least 9 of 10 times what they said before."""
    chance = random.Random(conversations)
    simulation = Simulation(workers=4)
    said = {
        number: text("You are a bee.", shared_blocks) + text(f"conversation {number}", 4)
        for number in range(conversations)
    }
    coming = [(chance.random() * 5, number, 0) for number in range(conversations)]
    heapq.heapify(coming)
    hits: list[bool] = []
    while coming:
        now, number, turn = heapq.heappop(coming)
        simulation.at(now)
        until = now + chance.uniform(0.5, 2)
        hit = simulation.ask(number, prefix_hashes({"messages": [said[number]]}), until)
        if hit is None:
            heapq.heappush(coming, (now + 0.2, number, turn))
            continue
        if turn:
            hits.append(hit)
        said[number] += text(f"turn {turn} of {number}", 2)
        if turn < 12:
            heapq.heappush(coming, (until + chance.uniform(0.5, 4), number, turn + 1))

    assert sum(hits) / len(hits) >= 0.9


def spread(*, marked: bool) -> tuple[float, int]:
    """Serve requests that all begin alike; gives the share of the worker that got most, and the widest gap in load."""
    chance = random.Random(1)
    simulation = Simulation(workers=4)
    hot = text("You are a bee.", 40)
    now, widest = 0.0, 0
    for number in range(2000):
        now += chance.expovariate(8)
        simulation.at(now)
        hashes = prefix_hashes({"messages": [hot + text(f"question {number}", 2)]}) if marked else ()
        if simulation.ask(number, hashes, now + chance.uniform(0.5, 1.5)) is not None:
            runs = [simulation.running[worker_id] for worker_id in simulation.kept]
            widest = max(widest, max(runs) - min(runs))
    return max(simulation.served.values()) / sum(simulation.served.values()), widest


def test_one_hot_beginning_does_not_overload_one_worker() -> None:
    """Requests that all begin alike are spread as the least loaded worker would have it, within 5 %."""
    hot, least_loaded = spread(marked=True), spread(marked=False)

    assert hot[0] <= 1.05 * least_loaded[0]
    assert hot[1] <= max(SLOTS // 2, least_loaded[1])
