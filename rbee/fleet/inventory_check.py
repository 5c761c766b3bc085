"""Check an inventory as a whole: its files, the machines that Ansible makes of them, and what the daemons say."""

from __future__ import annotations

from rbee.errors import ConfigError
from rbee.fleet.assets import Assets
from rbee.fleet.file_check import check_files, known_variables
from rbee.fleet.inventory import Inventory
from rbee.fleet.machine_check import check_machines
from rbee.fleet.problem import without_repeats
from rbee.fleet.served_check import check_served
from rbee.fleet.settings_check import check_settings


def check_inventory(inventory: Inventory, assets: Assets) -> list[ConfigError]:
    """List everything that is wrong, each with file and line where there is one."""
    problems = check_files(inventory, assets)
    refusal = None
    try:
        problems += [*check_machines(inventory, known_variables(assets)), *check_settings(inventory, assets)]
        problems += check_served(inventory)
    except ConfigError as error:
        # What Ansible says of a file that is no YAML was told, with its line.
        refusal = None if any(problem.unreadable for problem in problems) else error
    return [*(problem.error() for problem in without_repeats(problems)), *([refusal] if refusal else [])]
