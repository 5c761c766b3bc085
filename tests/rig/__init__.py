"""Real machines for tests: Debian hosts with systemd and sshd, as containers on this machine.

    with Rig(hosts=3) as rig:
        rig["h1"].run("id")                      # over SSH, as the admin, with the host key checked
        rig["h2"].cut_cable()
        rig["h3"].power_cut()
        rig.repository.commit("broken", {"rbee/__init__.py": "1/0"})
        rig.write_inventory(tmp_path / "inventory")

It needs root, and says so if it has not (`RigUnavailable`). Tests take the fixtures `rig` and `rig_session`
(tests/rig/fixtures.py); a person runs `make rig HOSTS=3` and `make rig-down`.
"""

from __future__ import annotations

from tests.rig.base import ADMIN
from tests.rig.commands import RigError, RigUnavailable
from tests.rig.host import Host
from tests.rig.repository import Repository
from tests.rig.rig import Rig
from tests.rig.spec import ADMIN_PASSWORD, HostSpec

__all__ = ["ADMIN", "ADMIN_PASSWORD", "Host", "HostSpec", "Repository", "Rig", "RigError", "RigUnavailable"]
