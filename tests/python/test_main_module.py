"""Functions and classes of `__main__`: scripts, and what is typed into an interpreter."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from support import program, run


def test_functions_and_classes_of_a_script(tmp_path: Path) -> None:
    path = program(
        tmp_path / "script.py",
        """
        import libpool

        def before(x):
            return x + 1

        class Before:
            def __init__(self, x):
                self.x = x

        pool = libpool.Pool(2)

        def after(x):
            return before(x) * 10

        class After(Before):
            def get(self):
                return after(self.x)

        print(pool.map(before, [1, 2]), pool.map(after, [1, 2]))
        print([type(x).__name__ for x in pool.map(Before, [1])], pool.apply(After(1).get))
        made = pool.apply(After, (5,))
        print(type(made) is After, made.x, made.get())

        def before(x):
            return -x

        print(pool.map(before, [1, 2]), pool.map(after, [1, 2]))
        del before
        try:
            pool.map(after, [1])
        except NameError as error:
            print(error)
        pool.terminate()
        """,
    )
    assert run(path) == (
        "[2, 3] [20, 30]\n['Before'] 20\nTrue 5 60\n[-1, -2] [-10, -20]\n"
        "name 'before' is not defined\n"
    )


def test_functions_typed_into_an_interactive_interpreter() -> None:
    typed = """
import libpool
pool = libpool.Pool(2)
def f(x): return g(x)

try: pool.map(f, [1])
except NameError: print("no g yet")

def g(x): return x + k

k = 1
print(pool.map(f, [1, 2]))
k = 2
print(pool.map(f, [1, 2]))
def g(x): return x * 100

print(pool.map(f, [1, 2]))
class A:
    def __init__(self, x): self.x = x

print([type(a) is A for a in pool.map(A, [1, 2])])
exec("def h(x): return f(x) + 1")
print(pool.map(h, [1, 2]))
import statistics
print(pool.apply(lambda xs: statistics.mean(xs), ([1, 3],)))
pool.terminate()
"""
    done = subprocess.run(
        [sys.executable, "-i", "-q", "-c", "import sys; sys.ps1 = sys.ps2 = ''"],
        input=typed,
        capture_output=True,
        text=True,
        timeout=40,
    )
    assert done.stdout.split("\n") == [
        "no g yet",
        "[2, 3]",
        "[3, 4]",
        "[100, 200]",
        "[True, True]",
        "[101, 201]",
        "2",
        "",
    ], done.stderr
    assert "Traceback" not in done.stderr


def test_data_made_after_the_executor_reaches_functions_made_before_it(tmp_path: Path) -> None:
    path = program(
        tmp_path / "late_data.py",
        """
        import threading
        import libpool

        def lookup(x):
            return table[x]

        def locked(x):
            return x if "lock" not in globals() else -1

        def uses_lock(x):
            return x if lock else lock

        with libpool.Executor(2) as executor:
            table = {1: "one", 2: "two"}
            print(list(executor.map(lookup, [1, 2])))
            table[1] = "uno"
            print(list(executor.map(lookup, [1, 2])))
            lock = threading.Lock()
            print(list(executor.map(locked, [1, 2])))
            print(repr(executor.submit(uses_lock, 1).exception()))
        """,
    )
    output = run(path).splitlines()
    assert output[:3] == ["['one', 'two']", "['uno', 'two']", "[1, 2]"]
    assert "lock" in output[3]


def test_two_pools_made_at_different_times_know_different_things(tmp_path: Path) -> None:
    path = program(
        tmp_path / "two_pools.py",
        """
        import libpool

        def f(x):
            return x + 1

        class A:
            def get(self):
                return 1

        def get(a):
            return a.get(), isinstance(a, A)

        first = libpool.Pool(1)

        def f(x):
            return x + 2

        class A:
            def get(self):
                return 2

        second = libpool.Pool(1)
        print([p.apply(f, (1,)) for p in (first, second, first, second)])
        print([p.apply(get, (A(),)) for p in (first, second)])
        print([type(p.apply(A)) is A for p in (first, second)])

        def f(x):
            return x + 3

        print([p.apply(f, (1,)) for p in (first, second)])
        first.terminate()
        second.terminate()
        """,
    )
    assert run(path) == "[3, 3, 3, 3]\n[(2, True), (2, True)]\n[True, True]\n[4, 4]\n"


def test_a_nested_submit_of_a_function_sent_by_value(tmp_path: Path) -> None:
    path = program(
        tmp_path / "nested.py",
        """
        import libpool

        executor = libpool.Executor(2)

        def fibonacci(n):
            if n < 2:
                return n
            left = libpool.current().submit(fibonacci, n - 1)
            return fibonacci(n - 2) + left.result()

        print(executor.submit(fibonacci, 10).result())
        executor.shutdown()
        """,
    )
    assert run(path) == "55\n"
