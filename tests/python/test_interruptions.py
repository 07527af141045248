"""A signal handler may raise between any two instructions: no pool is lost by that."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import program, run

INTERRUPT = """
    import gc, linecache, os, sys, warnings
    import libpool
    sys.path.insert(0, sys.argv[2])
    from support import descendants, until

    make = getattr(libpool, sys.argv[1])
    warnings.simplefilter("ignore")
    sys.unraisablehook = lambda info: None  # what is raised in a finalizer
    package = os.path.dirname(libpool.__file__)
    places = []
    host = os.getpid()

    def interrupt_at(number):
        "Raise KeyboardInterrupt at this line of those that run in the package, threading or here."
        def trace(frame, event, argument):
            nonlocal number
            file = frame.f_code.co_filename
            if not (file == __file__ or os.path.basename(file) == "threading.py"
                    or os.path.dirname(file) == package):
                return None
            if os.path.basename(file) in ("_checks.py", "_functions.py", "_snapshot.py"):
                return None  # many lines, and they run before there is a pool
            # Signal handlers run where a function begins and after a call. So not at these lines,
            # where CPython 3.11 loses the exception at hand if the trace function raises.
            line = linecache.getline(file, frame.f_lineno).lstrip()
            if event == "line" and not line.startswith(("except", "pass")):
                number -= os.getpid() == host
                if number == 0 and os.getpid() == host:
                    places.append((file, frame.f_lineno))
                    raise KeyboardInterrupt
            return trace
        sys.settrace(trace)

    def interrupted(number, again):
        "Whether the lines were so many."
        places.clear()
        interrupt_at(number)
        try:
            use()
        except KeyboardInterrupt:
            if again:
                interrupt_at(again)
        # What the exception kept alive goes in here, with the second interruption.
        sys.settrace(None)
        gc.collect()
        until(lambda: descendants(host) == set())
        return len(places) == (2 if again else 1)

    def every_line():
        number = 1
        while interrupted(number, 0):
            again = 1
            while interrupted(number, again):
                again += 1
            number += 1
        return number - 1
"""


@pytest.mark.parametrize("kind", ["Pool", "Executor"])
@pytest.mark.parametrize("use", ["with", "close", "drop"])
def test_an_interruption_at_any_line_leaves_no_process(tmp_path: Path, kind: str, use: str) -> None:
    body = {
        "with": """
    def use():
        with make(1) as workers:
            workers.submit(pow, 2, 3).result()
""",
        "close": """
    def use():
        workers = make(1)
        future = workers.submit(pow, 2, 3)
        workers.close()
        workers.join()
""",
        "drop": """
    def use():
        workers = make(1)
        workers.submit(pow, 2, 3)
        del workers
        gc.collect()
""",
    }[use]
    code = INTERRUPT + body + "\n    print(every_line())\n"
    lines = run(program(tmp_path / "use.py", code), kind, str(Path(__file__).parent), timeout=60)
    assert int(lines) > 20
