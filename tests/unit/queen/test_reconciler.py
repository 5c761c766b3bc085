"""What is done so that declared models are served, and so that requests get memory: decisions without a fleet."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from rbee.contracts.control import YieldedChanged
from rbee.contracts.devices import YieldedDevice
from rbee.contracts.workers import WorkerState
from rbee.queen.scheduling.placement import AwaitRoom, SpawnWorker, UseWorker, place
from rbee.queen.scheduling.rejections import Refusal
from rbee.queen.scheduling.request import PlacementRequest
from rbee.queen.serving.explain import explain
from rbee.queen.serving.reconciler import Start
from tests.unit.queen.fleet import GB
from tests.unit.queen.machines import GPU, Machines, asked, ended, model, started, worker


class TestRollout:
    """Changed settings are rolled out without a lost request."""

    def test_the_new_worker_comes_before_the_old_one_goes(self) -> None:
        """Where memory allows it, the old worker serves until the new one does."""
        old, new = model("a", replicas=1), model("a", replicas=1, slots=2)
        machines = Machines(models=(old, new), need=4 * GB)
        machines.add("h1", worker("w1", old, need=4 * GB))
        found = machines.decide(new)
        assert (started(found), ended(found), found.retiring) == ([("a", "h1")], [], set())
        machines.add("h1", worker("w2", new, need=4 * GB, state=WorkerState.LOADING))
        assert machines.decide(new).retiring == set()
        machines.end("h1", "w2")
        machines.add("h1", worker("w3", new, need=4 * GB))
        assert ended(machines.decide(new)) == ["w1"]

    def test_without_memory_for_both_the_old_one_ends_first_when_it_is_idle(self) -> None:
        """A busy old worker gets no more requests, an idle one ends, and the new one follows."""
        old, new = model("a", replicas=1), model("a", replicas=1, slots=2)
        machines = Machines(models=(old, new))
        machines.add("h1", worker("w1", old, free=1))
        found = machines.decide(new)
        assert (ended(found), found.retiring) == ([], {"w1"})
        machines.end("h1", "w1")
        machines.add("h1", worker("w1b", old))
        assert ended(machines.decide(new)) == ["w1b"]
        machines.end("h1", "w1b")
        assert started(machines.decide(new)) == [("a", "h1")]

    def test_a_declaration_that_cannot_be_met_ends_nothing(self) -> None:
        """What serves goes on where no end of it makes room for what is declared now, and the reason is told."""
        old = model("a", replicas=1)
        for change, reason in (
            ({"where": {"nodes": ["h9"]}}, "h9: there is no node of this name"),
            ({"where": {"backend": "metal"}}, "it does not have metal"),
            ({"slots": 8}, "needs 38147 MB"),
        ):
            new = model("a", replicas=1, **change)
            machines = Machines(models=(old,))
            machines.occupancy.learn_need("a", model("a", slots=8).revision, GPU, 40 * GB)
            machines.add("h1", worker("w1", old))
            found = machines.decide(new)
            assert (found.steps, found.retiring) == ([], set()), change
            assert found.status["a"].state == "rolling out"
            assert reason in found.status["a"].reason

    def test_of_several_replicas_one_after_the_other_is_replaced(self) -> None:
        """As many old workers go as new ones serve, so that the capacity stays."""
        old, new = model("a", replicas=2), model("a", replicas=2, slots=2)
        machines = Machines("h1", "h2", "h3", models=(old, new))
        machines.add("h1", worker("w1", old))
        machines.add("h2", worker("w2", old))
        machines.add("h3", worker("w3", new))
        assert len(ended(machines.decide(new))) == 1

    def test_on_demand_an_unused_old_worker_just_ends(self) -> None:
        """Without replicas nothing is started for a worker that nobody uses."""
        old, new = model("a"), model("a", slots=2)
        machines = Machines(models=(old, new))
        machines.add("h1", worker("w1", old))
        found = machines.decide(new)
        assert (started(found), ended(found)) == ([], ["w1"])


class TestEviction:
    """Idle workers give way for models that are asked for."""

    def test_an_idle_worker_gives_way_and_a_busy_or_pinned_one_does_not(self) -> None:
        """A request starts its worker after an idle one has ended; it waits for a busy one; a pinned one stays."""
        a, b = model("a"), model("b")
        for busy, pinned, expected in ((False, False, SpawnWorker), (True, False, AwaitRoom), (False, True, Refusal)):
            machines = Machines(models=(a, b))
            keep: dict[str, Any] = {"keep": "always"} if pinned else {}
            machines.add("h1", worker("w1", a, free=3 if busy else 4, **keep))
            decision = machines.place(b)
            assert isinstance(decision, expected), (busy, pinned, decision)
            if isinstance(decision, SpawnWorker):
                assert (decision.evict, decision.device) == (("w1",), 0)

    def test_the_one_that_is_missed_least_gives_way(self) -> None:
        """Idle time x size / load time decides, and no more end than are needed."""
        a, b, c = model("a"), model("b"), model("c")
        machines = Machines(models=(a, b, c), need=4 * GB)
        machines.add("h1", worker("long-idle", a, need=4 * GB))
        machines.now += 500
        machines.add("h1", worker("just-used", b, need=4 * GB))
        machines.now += 50
        decision = machines.place(c)
        assert isinstance(decision, SpawnWorker)
        assert decision.evict == ("long-idle",)

    def test_a_model_that_was_just_loaded_stays_while_requests_wait_for_it(self) -> None:
        """Within three load times it does not give way, after them it does."""
        a, b = model("a"), model("b")
        machines = Machines(models=(a, b))
        machines.add("h1", worker("w1", a))
        machines.wanted.add("a")
        assert isinstance(machines.place(b), AwaitRoom)
        assert machines.decide(a, b, waiting=(asked(b),)).retiring == set()
        machines.now += 7
        assert isinstance(machines.place(b), SpawnWorker)

    def test_requests_that_wait_get_the_device_after_those_in_the_way_are_done(self) -> None:
        """The worker in use gets no more requests, its device is held, and its own model has to wait in turn."""
        a, b = model("a"), model("b")
        machines = Machines(models=(a, b))
        machines.add("h1", worker("w1", a, free=2))
        machines.wanted.update(("a", "b"))
        machines.now += 100
        found = machines.decide(a, b, waiting=(asked(b),))
        assert (found.retiring, found.claims) == ({"w1"}, {("h1", GPU, 0): "b"})
        machines.occupancy.claims = found.claims
        machines.registry.index.retire(frozenset(found.retiring))
        assert isinstance(machines.place(a), AwaitRoom)
        machines.end("h1", "w1")
        machines.add("h1", worker("w1b", a))
        machines.registry.index.retire(frozenset({"w1b"}))
        machines.now += 100
        decision = machines.place(b)
        assert isinstance(decision, SpawnWorker)
        assert decision.evict == ("w1b",)

    def test_a_worker_that_loads_for_a_request_is_not_taken_from_it(self) -> None:
        """Who waits for memory does not retire what is loading for somebody else."""
        a, b = model("a"), model("b")
        machines = Machines(models=(a, b))
        machines.add("h1", worker("w1", a, state=WorkerState.LOADING))
        found = machines.decide(a, b, waiting=(asked(b),))
        assert (found.retiring, found.claims) == (set(), {})

    def test_only_a_pinned_model_makes_others_give_way_for_its_replicas(self) -> None:
        """A replica of a model with a time takes what is free; one that is kept always has idle workers end."""
        lazy, usual, pinned = model("a"), model("b", replicas=1), model("b", replicas=1, keep="always")
        machines = Machines(models=(lazy, usual))
        machines.add("h1", worker("w1", lazy))
        machines.now += 100
        found = machines.decide(lazy, usual)
        assert started(found) == []
        assert "only after a has ended" in found.status["b"].reason
        (step,) = machines.decide(lazy, pinned).steps
        assert isinstance(step, Start)
        assert [each.worker_id for each in step.site.room.evict] == ["w1"]

    def test_two_pinned_models_that_exclude_each_other_leave_the_first_in_peace(self) -> None:
        """The second has its reason told, with the name of the first, and nothing moves."""
        first, second = model("a", replicas=1, keep="always"), model("b", replicas=1, keep="always")
        machines = Machines(models=(first, second))
        machines.add("h1", worker("w1", first))
        found = machines.decide(first, second)
        assert (found.steps, found.retiring, found.claims) == ([], set(), {})
        assert (found.status["a"].state, found.status["b"].state) == ("serving", "missing")
        assert found.status["b"].reason.endswith("what is always kept there does not give way: a")
        machines.occupancy.learn_need("b", second.revision, GPU, 65 * GB)
        assert "give way" not in machines.decide(first, second).status["b"].reason  # it would not fit without a either

    def test_a_fleet_without_nodes_is_told(self) -> None:
        """A queen that knows no node says so, of models that name none and of those that do."""
        anywhere, bound = model("a", replicas=1), model("b", replicas=1, where={"nodes": ["h9"]})
        machines = Machines(models=(anywhere, bound))
        machines.registry.remove_node("h1")
        status = machines.decide(anywhere, bound).status
        assert status["a"].reason == "no node is registered"
        assert status["b"].reason == "h9: there is no node of this name"
        assert explain(machines.fleet(), asked(anywhere)).candidates == []

    def test_a_model_larger_than_every_machine_is_refused_with_figures(self) -> None:
        """Nothing ends for what would not fit even then."""
        small, large = model("a"), model("b")
        machines = Machines(models=(small, large))
        machines.occupancy.learn_need("b", large.revision, GPU, 40 * GB)
        machines.add("h1", worker("w1", small))
        decision = machines.place(large)
        assert isinstance(decision, Refusal)
        assert "needs 38147 MB" in decision.message


class TestPlacement:
    """Requests for a declared model go to its own workers."""

    def test_a_declared_model_has_workers_of_its_own(self) -> None:
        """Two names of one file are two models; a request for the file takes any worker that has it."""
        a = model("a")
        b = a.model_copy(update={"name": "b"})
        machines = Machines(models=(a, b), need=2 * GB)
        machines.add("h1", worker("w1", a, need=2 * GB))
        assert isinstance(machines.place(a), UseWorker)
        assert isinstance(machines.place(b), SpawnWorker)
        assert isinstance(place(machines.fleet(), PlacementRequest(a.model)), UseWorker)

    def test_a_retired_worker_gets_no_request(self) -> None:
        """What is to end is not placed on, and is again once it stays after all."""
        a = model("a")
        machines = Machines(models=(a,), need=2 * GB)
        machines.add("h1", worker("w1", a, need=2 * GB))
        machines.registry.index.retire(frozenset({"w1"}))
        machines.registry.check_invariants()
        assert isinstance(machines.place(a), SpawnWorker)
        machines.registry.index.retire(frozenset())
        assert isinstance(machines.place(a), UseWorker)

    def test_explain_lists_every_device_with_its_reason(self) -> None:
        """Where it serves, where it fits, after what it would fit, and why not elsewhere."""
        a, b = model("a", where={"nodes": ["h1", "h2", "h9"]}), model("b")
        machines = Machines("h1", "h2", "h3", models=(a, b))
        machines.add("h1", worker("w1", a, free=3))
        machines.add("h2", worker("w2", b))
        found = explain(machines.fleet(), replace(asked(a), aliases=frozenset({a.model})))
        assert [(each.node, each.verdict) for each in found.candidates] == [
            ("h1", "serves"),
            ("h2", "fits_after_eviction"),
            ("h1", "waits"),
            ("h9", "impossible"),
        ]
        assert "once b has ended, which nobody uses" in found.candidates[1].reason
        assert found.candidates[1].evict[0].worker_id == "w2"
        assert found.next == "a request goes to w1 on h1, which has 3 free slots"


def test_a_declared_model_stays_away_from_a_yielded_device_and_comes_back() -> None:
    """While its only device is yielded a declared model is not started, and the reason says so; then it is again."""
    chat = model("chat", replicas=1)
    machines = Machines(models=(chat,))
    away = YieldedDevice(backend=GPU, device=0, since_unix=0.0, until_unix=1_767_232_800.0)
    machines.registry.apply("h1", YieldedChanged(yielded=[away]), now=machines.now)

    found = machines.decide(chat)
    assert found.steps == []
    assert found.status["chat"].state == "missing"
    assert "yielded to another program until 2026-01-01 02:00 UTC" in found.status["chat"].reason

    machines.registry.apply("h1", YieldedChanged(yielded=[]), now=machines.now)
    assert [type(step) for step in machines.decide(chat).steps] == [Start]
