#!/usr/bin/env python3
"""Changes that break programs are found by abi.py, each made in a copy of the header.

abi_changes.py --header H --map MAP --record FILE [--compiler CC]
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import abi
import header as headers

# (what it is, pattern in the header, what takes its place, what the report must show; whether only
# abidiff sees it)
CHANGES = [
    ("nothing", r"\A", "", "as on record", False),
    ("a function is gone", r"POOL_API int pool_cpu_count\(void\);", "", "pool_cpu_count", False),
    ("a parameter", r"(int pool_join\(struct pool \*pool, )int64_t", r"\1int", "pool_join", False),
    (
        "a member in between",
        r"(struct pool_options \{\s+size_t size;)",
        r"\1 int more;",
        "24",
        False,
    ),
    ("an enumerator", r"\bPOOL_RUNNING,", "POOL_MORE, POOL_RUNNING,", "POOL_RUNNING", False),
    ("a constant", r"(define POOL_EXIT_HOPELESS) 2", r"\1 3", "POOL_EXIT_HOPELESS", False),
    ("a sign", r"\bint retries;", "unsigned retries;", "retries", True),
    ("a callback", r"(\*stop\)\()void \*context", r"\1int context", "stop", True),
]


def report(changed: Path, arguments: argparse.Namespace, folder: Path) -> tuple[int, str]:
    """Return the exit status and the output of abi.py for a library with that header."""
    script = folder / "changed.map"
    shutil.copy(arguments.map, script)
    header = headers.read(changed)
    abi.update_map(script, header.names())
    library = folder / "changed.so"
    abi.build_interface(changed, header, script, [arguments.compiler], library)
    command = [sys.executable, abi.__file__, "--compiler", arguments.compiler]
    options = {"header": changed, "map": script, "record": arguments.record, "library": library}
    for name, value in options.items():
        command += [f"--{name}", str(value)]
    finished = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    return finished.returncode, finished.stdout + finished.stderr


def main() -> int:
    """Make each change, and look at what abi.py says of it."""
    parser = argparse.ArgumentParser(description="changes that abi.py has to find")
    parser.add_argument("--header", type=Path, required=True)
    parser.add_argument("--map", type=Path, required=True)
    parser.add_argument("--record", type=Path, required=True)
    parser.add_argument("--compiler", default="cc")
    arguments = parser.parse_args()
    text, failed = arguments.header.read_text(), 0
    for what, pattern, replacement, shown, needs_abidiff in CHANGES:
        if needs_abidiff and not shutil.which("abidiff"):
            print(f"{what}: skipped, no abidiff here")
            continue
        changed_text, count = re.subn(pattern, replacement, text, count=1)
        with tempfile.TemporaryDirectory() as folder:
            changed = Path(folder, arguments.header.name)
            changed.write_text(changed_text)
            status, output = report(changed, arguments, Path(folder))
        right = count == 1 and shown in output and status == (0 if what == "nothing" else 1)
        print(f"{what}: {'found' if right else f'NOT FOUND: {status}, {output}'}")
        failed += not right
    return failed


if __name__ == "__main__":
    sys.exit(main())
