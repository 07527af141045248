"""How a host and its jobs tell the observer what happens: a line of JSON each, through a pipe.

The pipe has a name in the run's own folder, so that workers find it that inherited nothing.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

FOLDER = "LIBPOOL_FAULTS_FOLDER"
"""The environment variable that names the folder; it also marks the processes of a run."""

PIPE = "events"


def folder() -> Path:
    """Return the folder of this run."""
    return Path(os.environ[FOLDER])


def tell(event: str, **details: Any) -> None:
    """Send one event. A line is short enough for the kernel not to mix it with another."""
    line = json.dumps({"event": event, "at": time.monotonic(), **details}) + "\n"
    descriptor = os.open(folder() / PIPE, os.O_WRONLY)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)


def phase(name: str, limit: float) -> None:
    """Say what the host does next, and within how many seconds it should be through with it."""
    tell("phase", name=name, limit=limit)
