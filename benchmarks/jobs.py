"""The jobs that the benchmarks submit.

They have a module of their own, which imports nothing: pools whose workers don't come of a fork
import the module of a function that is sent to them, and what that costs is none of the pool's.
"""

from __future__ import annotations

from time import perf_counter, sleep
from typing import Any


def f(x: Any, y: Any = None) -> Any:
    """Do nothing, and return the first argument."""
    return x


def successor(x: int) -> int:
    """Do next to nothing."""
    return x + 1


def spin(seconds: float) -> float:
    """Keep a core busy for so long. Returns the argument."""
    end = perf_counter() + seconds
    while perf_counter() < end:
        pass
    return seconds


def doze(seconds: float) -> float:
    """Sleep for so long. Returns the argument."""
    sleep(seconds)
    return seconds


def sum_primes(n: int) -> int:
    """Sum the primes below `n`, by trial division: nothing but arithmetic."""
    total = 0
    for number in range(2, n):
        divisor = 2
        while divisor * divisor <= number and number % divisor:
            divisor += 1
        if divisor * divisor > number:
            total += number
    return total


def negative(a: Any) -> Any:
    """Return the negative of an array."""
    return -a


def negative_to(a: Any, b: Any) -> None:
    """Write the negative of one array to another."""
    import numpy

    numpy.negative(a, out=b)
