"""The program in which a fault happens: ``python host.py POOL FAULT SECONDS``."""

from __future__ import annotations

import resource
import sys

import catalogue
import pools
import scenarios
from events import phase

if __name__ == "__main__":  # not where a worker imports this
    _, name, fault_name, seconds = sys.argv
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    scenarios.limit = float(seconds)
    fault = catalogue.FAULTS[fault_name]
    phase("open", scenarios.limit)
    subject = pools.SUBJECTS[name]()
    fault.open(subject)
    fault.host(subject)
