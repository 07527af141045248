"""The C++ programs in a page of the documentation compile, and print what they say.

``documented.py PAGE COMPILER [FLAGS...]``: each block that has a ``main()`` is a program, and each
``// prints TEXT`` in it promises a line of output, in order.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path


def main() -> int:
    """Check all programs of a page. Returns the exit code."""
    page, *compiler = sys.argv[1:]
    blocks = re.findall(r"^```cpp\n(.*?)^```$", Path(page).read_text(), re.MULTILINE | re.DOTALL)
    programs = [block for block in blocks if "int main()" in block]
    failed = not programs
    for number, program in enumerate(programs, 1):
        with tempfile.TemporaryDirectory() as folder:
            source, target = Path(folder, "program.cpp"), Path(folder, "program")
            source.write_text(program)
            subprocess.run([compiler[0], source, "-o", target, *compiler[1:]], check=True)
            run = subprocess.run([target], capture_output=True, text=True, timeout=60)
        promised = re.findall(r"// prints (.*)$", program, re.MULTILINE)
        printed = [line.rstrip() for line in run.stdout.splitlines()]
        right = run.returncode == 0 and printed == promised
        failed = failed or not right
        print(f"program {number}: {'as promised' if right else (promised, printed, run.stderr)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
