"""Run the benchmark: `python -m tests.bench [PART...] [--strict]`."""

from __future__ import annotations

import argparse
import sys

from tests.bench.parts import DEFAULT, PARTS
from tests.bench.rows import table, write
from tests.support.checkout import ROOT
from tools.longstep import StepError

LATEST = ROOT / ".bench" / "latest.json"


def main() -> int:
    """Measure the parts that are named, print their table, write it as JSON."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Measure rbee against its peers.")
    parser.add_argument(
        "parts", nargs="*", metavar="PART", help=f"any of: {', '.join(PARTS)}; without: {', '.join(DEFAULT)}"
    )
    parser.add_argument("--strict", action="store_true", help="exit with 1 if a target is missed")
    wish = parser.parse_args()
    if unknown := set(wish.parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}; there are: {', '.join(PARTS)}")
    rows = []
    try:
        for name in wish.parts or DEFAULT:
            print(f"measuring {name} ...", flush=True)
            rows += PARTS[name]()
    except StepError as failure:
        print(f"the peer could not be built: {failure}", file=sys.stderr)
        return 1
    write(rows, LATEST)
    print(f"\n{table(rows)}\n\nwritten to {LATEST.relative_to(ROOT)}")
    return 1 if wish.strict and not all(row.kept for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
