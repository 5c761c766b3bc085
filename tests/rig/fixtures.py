"""Fixtures for tests that need real machines; tests/conftest.py brings them to all tests.

A test marked `rig` takes the fixture `rig`: hosts h1, h2 and h3, bare at the start of each test, whatever the one
before did to them. All such tests run in one worker of pytest-xdist, so that there is one rig.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.rig.commands import RigUnavailable
from tests.rig.rig import Rig
from tests.rig.spec import HostSpec

# The first one may have to build the tree that hosts share.
_TIMEOUT_S = 600
_HOSTS = ("h1", "h2", "h3")


def pytest_itemcollected(item: pytest.Item) -> None:
    """Keep the tests of the rig in one process, and give them the time that machines take.

    Not when the collection is modified: pytest-xdist, which comes first there, would not see the group.
    """
    if item.get_closest_marker("rig") is not None:
        item.add_marker(pytest.mark.xdist_group("rig"))
        if item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(_TIMEOUT_S))


class _Shared:
    """The rig of this session, and whether a test has had its hosts since they were made."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.used = False


@pytest.fixture(scope="session", name="_shared_rig")
def _make_shared_rig(request: pytest.FixtureRequest) -> Iterator[_Shared]:
    if os.environ.get("PYTEST_XDIST_WORKER") and "@rig" not in os.environ["PYTEST_CURRENT_TEST"]:
        pytest.fail("pytest-xdist does not keep the tests of the rig together, so they would get in each other's way")
    capture = request.config.pluginmanager.getplugin("capturemanager")
    try:
        rig = Rig({name: HostSpec() for name in _HOSTS})
        # The building of the tree takes minutes, and must be seen to live.
        with capture.global_and_fixture_disabled():
            rig.open()
    except RigUnavailable as reason:
        pytest.skip(str(reason))
    try:
        yield _Shared(rig)
    finally:
        rig.close()


@pytest.fixture(name="rig")
def _rig(_shared_rig: _Shared) -> Rig:
    """Give three bare hosts, h1, h2 and h3."""
    rig = _shared_rig.rig
    if _shared_rig.used:
        for host in list(rig):
            if host.name not in _HOSTS:
                rig.remove_host(host.name)
        rig.reset()
    _shared_rig.used = True
    return rig


@pytest.fixture(name="worn_rig")
def _worn_rig(_shared_rig: _Shared) -> Rig:
    """Give the same hosts in whatever state the test before left them, for a story told in several tests."""
    _shared_rig.used = True
    return _shared_rig.rig
