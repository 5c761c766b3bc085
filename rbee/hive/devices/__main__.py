"""The probe's child: asks the GPU driver and prints one JSON line, `{"devices": [...]}` or `{"fault": "..."}`.

Imports as little as it can, because a hive's cold start waits for it on machines that have a driver.
"""

from __future__ import annotations

import json
import sys

from rbee.hive.devices import nvidia


def main() -> None:
    """Ask NVML."""
    try:
        devices = [device.model_dump(mode="json") for device in nvidia.detect()]
    except nvidia.NvidiaFaultError as error:
        sys.stdout.write(json.dumps({"fault": str(error)}) + "\n")
    else:
        sys.stdout.write(json.dumps({"devices": devices}) + "\n")


if __name__ == "__main__":
    main()
