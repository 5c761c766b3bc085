"""Read the headers of the files that the arguments name, within limits, and print what was found as JSON.

The program of the child process in which a hive reads what nobody has checked yet; see `hive/models/headers`.
"""

from __future__ import annotations

import contextlib
import json
import resource
import sys
from pathlib import Path
from typing import Any, Final

from rbee import lifeline
from rbee.gguf.fields import read_parts
from rbee.gguf.reader import HeaderError

MEMORY_BYTES: Final = 512 * 1024 * 1024
CPU_S: Final = 10


def main() -> None:
    """Run the program."""
    lifeline.attach()
    limit()
    sys.stdout.write(json.dumps(answer([Path(argument) for argument in sys.argv[1:]])))


def limit() -> None:
    """Take from this process what reading a header does not need: memory, time, files, dumps."""
    for kind, most in (
        (resource.RLIMIT_AS, MEMORY_BYTES),
        (resource.RLIMIT_CPU, CPU_S),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        with contextlib.suppress(ValueError, OSError):  # macOS has no limit of the address space
            resource.setrlimit(kind, (most, most))


def answer(paths: list[Path]) -> dict[str, Any]:
    """Return `facts`, or why there are none: `invalid`, or `unreadable`."""
    try:
        return {"facts": read_parts(paths)}
    except HeaderError as error:
        return {"invalid": error.reason, "hint": error.hint}
    except MemoryError:
        return {"invalid": f"reading its header takes more than {MEMORY_BYTES // 1024**2} MB"}
    except OSError as error:
        return {"unreadable": error.strerror or str(error)}
