"""Run the benchmark: `python -m bench [PART...] [--rounds N] [--strict]`."""

from __future__ import annotations

import argparse
import subprocess
import sys

from bench.parts import DEFAULT, PARTS
from bench.rows import Row, table, write
from rbee.errors import RbeeError
from tests.support.checkout import ROOT
from tools.longstep import StepError

LATEST = ROOT / ".bench" / "latest.json"


def main() -> int:
    """Measure the parts that are named, print their table, write it as JSON."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure rbee against its peers.")
    parser.add_argument(
        "parts", nargs="*", metavar="PART", help=f"any of: {', '.join(PARTS)}; without: {', '.join(DEFAULT)}"
    )
    parser.add_argument("--strict", action="store_true", help="exit with 1 if a target is missed")
    parser.add_argument(
        "--rounds", type=int, default=5, help="how often each is measured; the medians count (default: 5)"
    )
    arguments = parser.parse_args()
    if unknown := set(arguments.parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}; there are: {', '.join(PARTS)}")
    if arguments.rounds < 1:
        parser.error("--rounds must be 1 or more")
    rows: list[Row] = []
    failed = []
    for name in arguments.parts or DEFAULT:
        print(f"measuring {name} ...", flush=True)
        try:
            for row in PARTS[name](arguments.rounds):
                rows.append(row)
                print(f"  {row.name}: {row.ours:.4g} {row.unit}", flush=True)
        except (AssertionError, OSError, RbeeError, RuntimeError, StepError, subprocess.SubprocessError) as failure:
            # The other parts are still worth their minutes; the exit code tells.
            failed.append(name)
            print(f"{name} could not be measured: {failure}", file=sys.stderr)
    write(rows, LATEST)
    print(f"\n{table(rows)}\n\nwritten to {LATEST.relative_to(ROOT)}")
    missed = [row.name for row in rows if not row.kept]
    return 1 if failed or (arguments.strict and missed) else 0


if __name__ == "__main__":
    sys.exit(main())
