"""Instructions, counted by callgrind: which ones, in how many processes.

Only *self* costs are read, by the file that they are of, so that the interpreter and libc, which
differ from machine to machine, can be left out.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

TIMEOUT = 120
_NAME = re.compile(r"(c?)(ob|fl|fi|fe|fn)=(?:\((\d+)\))?\s*(.*)")


def available() -> str | None:
    """Return why nothing can be counted here, or None where it can."""
    try:
        subprocess.run(["valgrind", "--version"], capture_output=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return "valgrind is not installed"
    return None


def run(command: Sequence[str], toggles: Iterable[str] = ()) -> tuple[str, dict[int, Counter[str]]]:
    """Run a program under callgrind.

    Parameters
    ----------
    command : sequence of str
        What to run.
    toggles : iterable of str
        Counting begins where one of these functions is entered, and ends where it is left; the
        other way round inside of another. None: everything counts.

    Returns
    -------
    output : str
        What it printed.
    counts : dict of int to Counter
        Of it and of the processes that it forked, by their number: instructions in each function,
        named ``object:file:function``. Only of those that ended in an orderly way.
    """
    with tempfile.TemporaryDirectory() as folder:
        options = [f"--toggle-collect={each}" for each in toggles]
        finished = subprocess.run(
            ["valgrind", "-q", "--tool=callgrind", f"--callgrind-out-file={folder}/%p", *options]
            + list(command),
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            env={**os.environ, "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"},
        )
        if finished.returncode != 0:
            raise RuntimeError(f"{' '.join(command)} failed: {finished.stderr.strip()}")
        counts = {
            int(file.name): parse(file.read_text(errors="replace").splitlines())
            for file in Path(folder).iterdir()
            if file.name.isdigit()
        }
    return finished.stdout, counts


def parse(lines: Iterable[str]) -> Counter[str]:
    """Add up the self costs in a profile, by function."""
    names: dict[tuple[str, str], str] = {}
    here = {"ob": "", "fl": "", "fn": ""}
    counts: Counter[str] = Counter()
    inclusive = False
    for line in lines:
        match = _NAME.match(line)
        if match:
            called, kind, number, name = match.groups()
            table = "ob" if kind == "ob" else "fn" if kind == "fn" else "fl"
            # A name stands there in full once, and later by its number. What is called has its name
            # in the same tables, and is not where we are.
            if number and name:
                names[table, number] = name
            elif number:
                name = names[table, number]
            # Between functions `fi` and `fe` name the file that inlined lines are from.
            if not called and kind in here:
                here[kind] = name
        elif line.startswith("calls="):
            inclusive = True  # the next line is the cost of the call
        elif line[:1].isdigit() or line[:1] in ("+", "-", "*"):
            if not inclusive:
                where = f"{Path(here['ob']).name}:{Path(here['fl']).name}:{here['fn']}"
                counts[where] += int(line.split()[1])
            inclusive = False
    return counts
