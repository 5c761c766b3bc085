"""Which models and devices are kept out of use after crashes, and for how long."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rbee.contracts.devices import Backend
from rbee.hive.supervision.quarantine import TRIES, Crash, Place, QuarantineLedger

GPU, OTHER_GPU = (Backend.CUDA, 0), (Backend.CUDA, 1)
BAR_S = 100.0


def under(*crashes: str) -> QuarantineLedger:
    """Record crashes of one model, each while requests of the clients ran that its letters name."""
    made = QuarantineLedger(BAR_S)
    for clients in crashes:
        made.record_crash(Crash("a", GPU, "it ended by signal 11", frozenset(clients)), 0.0)
        made.check_invariants()
    return made


def book(*crashes: tuple[str, Place], at: float = 0.0) -> QuarantineLedger:
    made = QuarantineLedger(BAR_S)
    for model, place in crashes:
        made.record_crash(Crash(model, place, "it ended by signal 11"), at)
        made.check_invariants()
    return made


def test_a_model_is_quarantined_after_three_crashes_with_the_reason() -> None:
    """Two crashes are bad luck; the third in a row, on whatever device, keeps the model out, and says why."""
    assert not book(("a", GPU), ("a", GPU)).quarantined_models(0)

    third = book(("a", GPU), ("a", OTHER_GPU), ("a", GPU))

    assert set(third.quarantined_models(0)) == {"a"}
    assert third.quarantined_models(0)["a"].explained() == (
        "3 workers crashed in a row, the last one because it ended by signal 11"
    )
    assert not third.quarantined_devices(0)


def test_one_client_takes_a_model_from_nobody() -> None:
    """However many workers end under the requests of one client, or two, the model stays in use for the others."""
    assert not under(*["e"] * 20).quarantined_models(0)
    assert not under("e", "f", "e", "f", "ef").quarantined_models(0)


def test_those_who_only_share_the_workers_do_not_make_it_several_clients() -> None:
    """Crashes that one client explains are that client's, whoever else was being answered at the time."""
    assert not under("eab", "eab", "eab", "ecd").quarantined_models(0)


def test_crashes_under_three_clients_quarantine_the_model() -> None:
    """Three crashes that take three clients to explain are the model's fault."""
    assert not under("a", "b").quarantined_models(0)
    assert under("a", "b", "c").quarantined_models(0)
    assert under("ab", "bc", "ca", "d", "e").quarantined_models(0)


def test_loads_and_requests_are_counted_apart() -> None:
    """Two loads that crash and a client that ends workers do not add up."""
    assert not under("", "", "e", "e", "e").quarantined_models(0)
    assert under("", "e", "", "").quarantined_models(0)


def test_one_client_takes_a_device_from_nobody() -> None:
    """A client that ends workers of several models puts no device out of use."""
    made = QuarantineLedger(BAR_S)
    for model in "abcabc":
        made.record_crash(Crash(model, GPU, "x", frozenset("e")), 0.0)

    assert not made.quarantined_devices(0)


def test_an_answered_request_is_proof() -> None:
    """The count begins anew with a request that was answered."""
    made = book(("a", GPU), ("a", GPU))
    made.record_success("a", GPU)
    made.record_crash(Crash("a", GPU, "x"), 0)

    assert not made.quarantined_models(0)


def test_a_device_is_quarantined_when_more_than_one_model_crashes_there() -> None:
    """Three in a row of several models are the device's fault, and the models are not blamed for it."""
    made = book(("a", GPU), ("b", GPU), ("a", GPU))

    assert set(made.quarantined_devices(0)) == {GPU}
    assert made.quarantined_devices(0)[GPU].explained().startswith("3 workers of 2 models crashed in a row")
    assert not made.models


def test_a_model_that_was_barred_is_acquitted_when_the_device_turns_out_to_be_at_fault() -> None:
    """What looked like one model's fault is put on the device once another model crashes there too."""
    made = book(("a", GPU), ("a", GPU), ("a", GPU), ("b", GPU))

    assert set(made.quarantined_devices(0)) == {GPU}
    assert not made.quarantined_models(0)


def test_a_model_that_also_crashed_elsewhere_is_not_acquitted() -> None:
    """A device at fault does not excuse what a model did on another one."""
    made = book(("a", OTHER_GPU), ("a", GPU), ("b", GPU), ("a", GPU))

    assert set(made.quarantined_devices(0)) == {GPU}
    assert made.models["a"].count == 2


def test_a_quarantine_ends_and_one_more_crash_puts_it_back() -> None:
    """After its time one more try is allowed, and it is the only one."""
    made = book(("a", GPU), ("a", GPU), ("a", GPU))

    assert made.quarantined_models(BAR_S - 1)
    assert not made.quarantined_models(BAR_S)
    made.record_crash(Crash("a", GPU, "again"), BAR_S + 1)
    assert set(made.quarantined_models(BAR_S + 2)) == {"a"}


def test_a_quarantine_can_be_lifted() -> None:
    """Lifting lets the model and the named device, or any, be tried once more, and only them."""
    made = book(("a", GPU), ("b", GPU), ("b", GPU), ("c", OTHER_GPU), ("d", OTHER_GPU), ("c", OTHER_GPU))
    assert set(made.quarantined_devices(0)) == {GPU, OTHER_GPU}

    made.lift("a", GPU)
    assert set(made.quarantined_devices(0)) == {OTHER_GPU}
    made.lift("a", None)
    assert not made.quarantined_devices(0)
    made.record_crash(Crash("a", GPU, "again"), 1)
    assert set(made.quarantined_devices(1)) == {GPU}


@given(
    st.lists(
        st.tuples(
            st.sampled_from("cpl"),
            st.sampled_from("abc"),
            st.sampled_from([GPU, OTHER_GPU]),
            st.frozensets(st.sampled_from("wxyz")),
        ),
        max_size=40,
    )
)
def test_whatever_happens_the_book_agrees_with_itself(steps: list[tuple[str, str, Place, frozenset[str]]]) -> None:
    """Nothing is barred that did not crash three times since it last proved itself."""
    made = QuarantineLedger(BAR_S)
    for at, (what, model, place, clients) in enumerate(steps):
        if what == "c":
            made.record_crash(Crash(model, place, "x", clients), at)
        elif what == "p":
            made.record_success(model, place)
            assert model not in made.quarantined_models(at)
            assert place not in made.quarantined_devices(at)
        else:
            made.lift(model, place)
        made.check_invariants()
        assert all(record.count >= TRIES for record in made.quarantined_models(at).values())
