"""Functions that end badly."""

from __future__ import annotations

import ctypes
import os
import sys
import threading
import time
from typing import Any, NoReturn


class Unprintable(Exception):
    """Even its message raises."""

    def __str__(self) -> str:
        raise ValueError("no message")


def deep(value: int) -> float:
    """Raise from a function that it calls."""
    return 1 / value


def raise_chain() -> None:
    """Raise with a cause and a note."""
    try:
        deep(0)
    except ZeroDivisionError as error:
        new = KeyError("outer")
        new.add_note("a note on it")
        raise new from error


def raise_unprintable() -> NoReturn:
    """Raise what has no message."""
    raise Unprintable


def raise_surrogate() -> NoReturn:
    """Raise with a message that has no UTF-8."""
    raise ValueError("\ud800 and \0 and more")


def raise_own() -> NoReturn:
    """Raise an exception of an inner class."""

    class Inner(Exception):
        pass

    raise Inner("own")


def exit(code: Any = 3) -> NoReturn:
    """End as a script does."""
    sys.exit(code)


def exit_at_once() -> NoReturn:
    """End the process."""
    os._exit(7)


def crash() -> Any:
    """Read memory that is not there."""
    return ctypes.string_at(0)


def recurse(depth: int = 0) -> int:
    """Never come to an end."""
    return recurse(depth + 1) + 1


def take_memory(size: int) -> int:
    """Allocate and touch."""
    return len(b"x" * size)


def sleep(seconds: float) -> None:
    """Sleep."""
    time.sleep(seconds)


def die_until(path: str, times: int) -> int:
    """Die, but not when that has happened so often already; a byte in the file for each time."""
    with open(path, "ab") as file:
        file.write(b"x")
    tries = os.path.getsize(path)
    if tries <= times:
        os.kill(os.getpid(), 9)
    return tries


def interrupt() -> NoReturn:
    """Raise what Ctrl-C would."""
    raise KeyboardInterrupt


def fork_and_return() -> int:
    """Come out of the job twice."""
    child = os.fork()
    if child:
        os.waitpid(child, 0)
    return child != 0


ticks = 0


def start_thread() -> None:
    """Leave a thread that counts."""

    def count() -> None:
        global ticks
        while True:
            ticks += 1
            time.sleep(0.001)

    threading.Thread(target=count, daemon=True).start()


def read_ticks() -> int:
    """Tell how far it has come."""
    return ticks


def pid() -> int:
    """Tell which process this is."""
    return os.getpid()


def write_to_broken_pipe() -> str:
    """Write where nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        os.write(writer, b"x")
    except BrokenPipeError:
        return "BrokenPipeError"
    finally:
        os.close(writer)
    return "nothing"
