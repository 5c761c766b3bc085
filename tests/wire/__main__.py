"""Write a golden file for every message of the wire that has none: `python -m tests.wire --write`."""

from __future__ import annotations

import argparse
import sys

from pydantic import ValidationError

from tests.support.checkout import ROOT
from tests.wire.golden import contract_models, write_missing


def main() -> int:
    """Write what is missing, and say which of it has to be completed by hand."""
    parser = argparse.ArgumentParser(prog="python -m tests.wire", description="Write missing golden files.")
    parser.add_argument("--write", action="store_true", required=True, help="write a file for each message without one")
    parser.parse_args()
    for path in write_missing():
        print(f"wrote {path.relative_to(ROOT)}")
        try:
            contract_models()[path.stem].model_validate_json(path.read_bytes())
        except ValidationError as error:
            print(f"  complete it by hand: {error}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
