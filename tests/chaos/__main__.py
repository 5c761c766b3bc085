"""Run chaos: `python -m tests.chaos --kills 200 --seed N`; exit code 1 if a promise was broken."""

from __future__ import annotations

import argparse
import secrets
import sys
import tempfile
import time
from pathlib import Path

from tests.chaos.run import run


def main() -> int:
    """Kill, measure, print the receipt."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description="Kill daemons at random moments.")
    parser.add_argument("--kills", type=int, default=200, help="how many daemons to kill (default: 200)")
    parser.add_argument(
        "--seed", type=int, default=None, help="where chance begins; without: somewhere, and it is said"
    )
    options = parser.parse_args()
    if options.kills < 1:
        parser.error("--kills must be 1 or more")
    seed = secrets.randbelow(2**31) if options.seed is None else options.seed
    print(f"seed {seed}", flush=True)
    began = time.monotonic()
    # Sockets lie below the folder: its path must be short.
    with tempfile.TemporaryDirectory(prefix="rbee-chaos-") as root:
        tally = run(Path(root), kills=options.kills, seed=seed, say=lambda line: print(line, flush=True))
    print(tally.receipt(time.monotonic() - began))
    return 1 if tally.violations else 0


if __name__ == "__main__":
    sys.exit(main())
