"""How many workers a declared model gets and where: decisions without a fleet."""

from __future__ import annotations

from typing import Any

import pytest

from rbee.contracts.workers import WorkerState
from rbee.queen.serving.loop import LAST_DELAY_S, delay_after
from rbee.queen.serving.reconciler import Failed, Reconciliation
from tests.unit.queen.fleet import GB, link
from tests.unit.queen.machines import GPU, Machines, ended, model, started, worker


class TestReplicas:
    """A declared model has as many workers as it has replicas."""

    def test_replicas_are_started_on_different_nodes(self) -> None:
        """Two replicas go to two nodes; a third waits, with the reason, until there is memory for it."""
        three = model("a", replicas=3)
        machines = Machines("h1", "h2", models=(three,))
        found = machines.decide(three)
        assert len(started(found)) == 1
        ((_, first),) = started(found)
        machines.add(first, worker("w1", three))
        ((_, second),) = started(machines.decide(three))
        assert {first, second} == {"h1", "h2"}
        machines.add(second, worker("w2", three))
        found = machines.decide(three)
        assert (started(found), found.status["a"].state) == ([], "degraded")
        assert "h1: the model needs 5723 MB and cuda device 0 has 3814 MB free" in found.status["a"].reason

    def test_what_is_being_started_counts(self) -> None:
        """While a worker is being started, no second one is for the same replica, nor on the same device."""
        one, other = model("a", replicas=1), model("b", replicas=1)
        machines = Machines(models=(one, other), need=3 * GB)
        starting = {("h1", GPU, 0): "a"}
        found = machines.decide(one, other, starting=starting)
        assert (started(found), found.status["a"].state) == ([], "loading")
        assert found.status["b"].reason == "another worker is being started on its device"

    def test_what_is_being_fetched_holds_no_device(self) -> None:
        """While the model of one is fetched, which may take hours, another one that is there is started."""
        one, other = model("a", replicas=1), model("b", replicas=1)
        machines = Machines(models=(one, other), need=3 * GB)
        found = machines.decide(one, other, starting={("h1", GPU, 0): "a"}, placing=frozenset())
        assert started(found) == [("b", "h1")]

    def test_replicas_load_side_by_side(self) -> None:
        """While one of two replicas loads, which its start waits for, the other is started elsewhere."""
        machines = Machines("h1", "h2", models=(two := model("a", replicas=2),))
        machines.add("h1", worker("w1", two, state=WorkerState.LOADING))
        assert started(machines.decide(two, starting={("h1", GPU, 0): "a"})) == [("a", "h2")]
        assert started(machines.decide(two, starting={("h1", GPU, 0): "a", ("h2", GPU, 0): "a"})) == []

    def test_a_node_that_comes_later_takes_over_a_replica(self) -> None:
        """Of two replicas on one node, one moves to a node that has none; both serve until the new one does."""
        machines = Machines("h1", "h2", models=(two := model("a", replicas=2),), need=3 * GB)
        machines.add("h1", worker("w1", two, need=3 * GB), worker("w2", two, need=3 * GB))
        found = machines.decide(two)
        assert (started(found), found.status["a"].state) == ([("a", "h2")], "serving")
        assert started(machines.decide(two, starting={("h2", GPU, 0): "a"})) == []
        assert started(machines.decide(two, failed={"a": Failed("it does not load", delays=True)})) == []
        machines.add("h2", worker("w3", two, need=3 * GB, state=WorkerState.LOADING))
        found = machines.decide(two)
        assert (ended(found), found.retiring) == ([], set())
        machines.workers["h2"].clear()
        machines.add("h2", worker("w3", two, need=3 * GB))
        assert ended(machines.decide(two)) == ["w1"]
        machines.end("h1", "w1")
        found = machines.decide(two)
        assert (started(found), ended(found)) == ([], [])

    def test_no_replica_moves_into_the_room_of_one_that_is_missing(self) -> None:
        """A node that is free goes to a model that lacks a worker first, then to one that has two elsewhere."""
        two, bound = model("a", replicas=2), model("b", replicas=1, where={"nodes": ["h2"]})
        machines = Machines("h1", "h2", models=(two, bound), need=5 * GB)
        machines.add("h1", worker("w1", two, need=5 * GB), worker("w2", two, need=5 * GB))
        assert started(machines.decide(two, bound)) == [("b", "h2")]
        machines.add("h2", worker("w3", bound, need=5 * GB))
        assert started(machines.decide(two, bound)) == [("a", "h2")]

    def test_a_model_that_is_bound_to_nodes_has_its_choice_first(self) -> None:
        """Of two models that lack a worker the one that may run anywhere leaves the other one its only node."""
        anywhere, bound = model("a", replicas=1), model("b", replicas=1, where={"nodes": ["h1"]})
        machines = Machines("h1", "h2", models=(anywhere, bound))
        assert sorted(started(machines.decide(anywhere, bound))) == [("a", "h2"), ("b", "h1")]

    def test_a_replacement_that_is_not_needed_any_more_ends_before_it_serves(self) -> None:
        """When a lost worker is back while its replacement loads, those that serve go on."""
        machines = Machines("h1", "h2", "h3", models=(two := model("a", replicas=2),))
        machines.add("h1", worker("w1", two))
        machines.add("h3", worker("w3", two, state=WorkerState.LOADING))
        assert ended(machines.decide(two)) == []
        machines.add("h2", worker("w2", two))
        assert ended(machines.decide(two)) == ["w3"]

    def test_fewer_replicas_end_the_idle_ones(self) -> None:
        """Of three workers for two replicas an idle one ends; while all are used, one gets no more requests."""
        machines = Machines("h1", "h2", "h3", models=(three := model("a", replicas=3),))
        for number, node in enumerate(("h1", "h2", "h3")):
            machines.add(node, worker(f"w{number}", three, free=4 if number == 1 else 2))
        two = three.model_copy(update={"replicas": 2})
        assert ended(machines.decide(two)) == ["w1"]
        one = three.model_copy(update={"replicas": 1})
        found = machines.decide(one)
        assert (ended(found), len(found.retiring)) == (["w1"], 2)

    def test_what_is_not_declared_any_more_ends_once_it_is_idle(self) -> None:
        """A worker of a removed declaration finishes its requests first; no worker of another kind is touched."""
        machines = Machines("h1", "h2", "h3", models=(gone := model("a"),))
        machines.add("h1", worker("busy", gone, free=3))
        machines.add("h2", worker("idle", gone))
        machines.add("h3", link("foreign", backend=GPU))
        found = machines.decide()
        assert (ended(found), found.retiring) == (["idle"], {"busy", "idle"})

    def test_what_another_queen_has_declared_is_left_alone(self) -> None:
        """Two queens may know one hive: neither ends the workers that the other one keeps."""
        other = model("a")
        machines = Machines(models=(other,))
        machines.add("h1", worker("w1", other, declared_by="queen-2"))
        assert machines.decide() == Reconciliation()

    def test_a_node_that_was_lost_a_moment_ago_counts(self) -> None:
        """What ran on a node whose channel broke is not started elsewhere at once, but soon."""
        machines = Machines("h1", "h2", models=(one := model("a", replicas=1),))
        machines.add("h1", worker("w1", one))
        machines.registry.lost("h1", "silent")
        assert started(machines.decide(one, lost=frozenset({"h1"}))) == []
        assert started(machines.decide(one)) == [("a", "h2")]

    def test_after_a_failure_the_reason_is_told_and_nothing_is_tried(self) -> None:
        """A model whose start failed waits for its next try."""
        machines = Machines(models=(one := model("a", replicas=1),))
        found = machines.decide(one, failed={"a": Failed("no such file", delays=True)})
        assert (started(found), found.status["a"].state, found.status["a"].reason) == ([], "missing", "no such file")

    def test_after_a_failure_other_places_are_tried_first(self) -> None:
        """The next try is where the fewest have failed; while it is under way, the last reason is still told."""
        machines = Machines("h1", "h2", models=(one := model("a", replicas=1),))
        at = {node: (node, GPU, 0) for node in ("h1", "h2")}
        for places, node in (({at["h1"]: 1}, "h2"), ({at["h1"]: 1, at["h2"]: 2}, "h1")):
            failed = {"a": Failed("h1: its disk is full", places=places)}
            assert started(machines.decide(one, failed=failed)) == [("a", node)]
            status = machines.decide(one, failed=failed, starting={at[node]: "a"}).status["a"]
            assert (status.state, status.reason) == ("loading", "h1: its disk is full")

    def test_the_pauses_between_failed_starts_grow_to_a_minute(self) -> None:
        """They double, and do not grow any more after a day of failures either."""
        assert [delay_after(count) for count in (1, 2, 3, 7, 2000)] == [1.0, 2.0, 4.0, LAST_DELAY_S, LAST_DELAY_S]

    @pytest.mark.parametrize(
        ("where", "reason"),
        [
            ({"nodes": ["h9"]}, "h9: there is no node of this name"),
            ({"nodes": ["h1"], "devices": [4]}, "h1: it has no cuda device 4; its cuda devices are 0"),
            ({"nodes": ["h1"], "backend": "metal"}, "h1: it does not have metal; it has cuda"),
        ],
    )
    def test_a_place_that_is_not_there_is_told(self, where: dict[str, Any], reason: str) -> None:
        """A declaration for a node, backend or device that does not exist says so in its status."""
        machines = Machines("h1", "h2", models=(one := model("a", replicas=1, where=where),))
        assert machines.decide(one).status["a"].reason == reason

    def test_a_worker_that_would_end_unused_is_replaced_by_one_that_stays(self) -> None:
        """What was started on demand is no replica: it serves until one does that its hive does not end."""
        lazy, kept = model("a"), model("a", replicas=1)
        machines = Machines("h1", "h2", models=(lazy,))
        machines.add("h1", worker("w1", lazy))
        found = machines.decide(kept)
        assert (len(started(found)), ended(found)) == (1, [])
        machines.add("h2", worker("w2", kept))
        assert ended(machines.decide(kept)) == ["w1"]
        machines.end("h1", "w1")
        assert machines.decide(kept).steps == []

    def test_a_model_stays_where_it_is_declared_for(self) -> None:
        """Only the nodes that are named get workers, and one elsewhere is replaced."""
        before, now = model("a", replicas=1), model("a", replicas=1, where={"nodes": ["h2"]})
        machines = Machines("h1", "h2", models=(before,))
        machines.add("h1", worker("w1", before))
        found = machines.decide(now)
        assert (started(found), ended(found)) == ([("a", "h2")], [])
        machines.add("h2", worker("w2", now))
        assert ended(machines.decide(now)) == ["w1"]
