"""Have real machines at hand: `python -m tests.rig up --hosts 3`, `status`, `down`."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from tests.rig.claims import HOME, rigs, sweep
from tests.rig.commands import RigError, RigUnavailable
from tests.rig.standing import INVENTORY, Note, hold, lower, raise_rig, standing
from tests.support.checkout import ROOT


def main() -> int:
    """Do what was asked for; 1 if it went wrong, 2 if this machine cannot have a rig."""
    parser = argparse.ArgumentParser(prog="python -m tests.rig", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="{up,down,status}")
    up = commands.add_parser("up", help="boot bare hosts, and leave them running")
    down = commands.add_parser("down", help="end these hosts, and what dead rigs left")
    status = commands.add_parser("status", help="say what runs")
    holder = commands.add_parser("hold")
    for command in (up, holder):
        command.add_argument("--hosts", type=int, default=3, help="how many (default 3)")
    for command in (up, down, status, holder):
        command.add_argument("--inventory", type=Path, default=INVENTORY, help="folder to write it to (inventory/rig)")
    holder.add_argument("--tell", type=int, required=True)
    options = parser.parse_args()
    try:
        match options.command:
            case "up":
                return _up(options.hosts, options.inventory)
            case "down":
                return _down(options.inventory)
            case "status":
                return _status(options.inventory)
            case _:
                return hold(options.hosts, options.inventory, options.tell)
    except RigUnavailable as reason:
        print(f"No rig here: {reason}", file=sys.stderr)
        return 2
    except RigError as failure:
        print(f"rig: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted; what was begun is taken away again.", file=sys.stderr)
        return 130


def _up(hosts: int, inventory: Path) -> int:
    if not 1 <= hosts <= 200:
        raise RigError(f"{hosts} hosts are not possible; 1 to 200 are")
    if there := standing(inventory):
        print("The rig is up already; `make rig-down` ends it.\n")
        _show(there[0])
        return 0
    began = time.monotonic()
    note = raise_rig(hosts, inventory)
    print(f"{len(note.hosts)} hosts are up, after {time.monotonic() - began:.1f} s.\n")
    _show(note)
    return 0


def _down(inventory: Path) -> int:
    for note in standing(inventory):
        lower(note)
        print(f"Rig {note.number} with {', '.join(note.hosts)} is gone.")
    for number in sweep() if HOME.exists() else []:
        print(f"What a dead rig {number} had left is gone.")
    return 0


def _status(inventory: Path) -> int:
    notes = standing(inventory)
    for note in notes:
        _show(note)
    mine = {note.number for note in notes}
    for number, held in rigs().items():
        if number not in mine:
            print(
                f"Rig {number} " + ("belongs to a test or another inventory." if held else "is dead; `down` clears it.")
            )
    if not notes:
        print("No rig stands for this inventory; `make rig` makes one.")
    return 0


def _show(note: Note) -> None:
    inventory = str(Path(note.inventory).parent).removeprefix(f"{ROOT}/")
    first, address = next(iter(note.hosts.items()))
    print("\n".join(f"  {name:<6} {host}" for name, host in note.hosts.items()))
    print(f"""
  inventory   {inventory}
  repository  {note.repository}

  log in      ssh -F /dev/null -i {note.key} -o UserKnownHostsFile={note.known_hosts} rbee-admin@{address}   # {first}
  try         ansible -i {inventory} all -m ping
  deploy      ansible-playbook -i {inventory} playbooks/site.yml
  end         make rig-down
""")


if __name__ == "__main__":
    sys.exit(main())
