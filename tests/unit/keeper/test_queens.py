"""Where the queen of the inventory is to be reached."""

from __future__ import annotations

from typing import Any

import pytest

from rbee.fleet.inventory import Node
from rbee.keeper.fleet.queens import queen_url


@pytest.mark.parametrize(
    ("host", "variables", "url"),
    [
        ("192.0.2.10", {}, "http://192.0.2.10:8080"),
        (None, {"rbee_queen_port": 8081}, "http://control:8081"),
        ("192.0.2.10", {"rbee_queen_host": "0.0.0.0", "rbee_queen_port": "8081"}, "http://192.0.2.10:8081"),
        ("192.0.2.10", {"rbee_queen_host": "10.8.0.1"}, "http://10.8.0.1:8080"),
        ("fd00::1", {"rbee_queen_port": "{{ base }}"}, "http://[fd00::1]:8080"),
    ],
)
def test_the_address_is_that_which_the_roles_derive(host: str | None, variables: dict[str, Any], url: str) -> None:
    """Its own address where it listens on one alone, else that for SSH; its port where the inventory says one."""
    assert queen_url(Node("control", host=host, variables=variables)) == url
