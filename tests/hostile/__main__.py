"""Attack a queen: `python -m tests.hostile --minutes 60`; exit code 1 if a promise was broken."""

from __future__ import annotations

import argparse
import secrets
import sys
import tempfile
from pathlib import Path

from tests.hostile.run import run


def main() -> int:
    """Attack, measure, print the receipt."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.hostile", description="Attack a queen as a client can, beside an honest client."
    )
    parser.add_argument("--minutes", type=float, default=60, help="how long (default: 60)")
    parser.add_argument("--seed", type=int, default=None, help="where chance begins")
    options = parser.parse_args()
    seed = secrets.randbelow(2**31) if options.seed is None else options.seed
    print(f"seed {seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="rbee-hostile-") as root:
        findings = run(Path(root), seconds=options.minutes * 60, seed=seed, say=lambda line: print(line, flush=True))
    print(findings.receipt())
    return 1 if findings.violations or findings.exceeded else 0


if __name__ == "__main__":
    sys.exit(main())
