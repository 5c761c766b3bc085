"""The probe's child process: queries the GPU driver and prints `{"devices": [...]}`, or `{"fault": "..."}`.

It imports little, because the cold start of a hive waits for it on machines that have a driver.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from rbee import lifeline
from rbee.hive.devices import nvidia


def main() -> None:
    """Query NVML and print the answer; end when the hive does."""
    lifeline.attach()
    answer: dict[str, Any]
    try:
        answer = {"devices": [device.model_dump(mode="json") for device in nvidia.detect()]}
    except nvidia.NvidiaFaultError as error:
        answer = {"fault": str(error)}
    sys.stdout.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
