"""An open pool, whatever its kind, as a few operations that the benchmarks time.

Every operation calls the pool's own methods in the timed loop, without a wrapper around each job,
so that what is timed is the pool.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any, Protocol

Function = Callable[..., Any]


class Session(Protocol):
    """An open pool. Times are in seconds."""

    def round_trips(self, function: Function, argument: object, count: int) -> list[float]:
        """Submit a job and wait for its result, `count` times. Returns the time of each."""

    def burst(self, function: Function, arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Submit a job for each tuple of arguments, then collect the results in order."""

    def numbers(self, function: Function, count: int) -> list[Any]:
        """Do the same for the arguments 0 to `count` - 1."""

    def call(self, function: Function, *arguments: object) -> Any:
        """Run one job and return its result."""


class FutureSession:
    """A pool whose ``submit(function, *arguments)`` returns a future."""

    def __init__(self, pool: Any) -> None:
        self.submit = pool.submit

    def round_trips(self, function: Function, argument: object, count: int) -> list[float]:
        """See `Session`."""
        submit = self.submit
        times = []
        for _ in range(count):
            start = perf_counter()
            submit(function, argument).result()
            times.append(perf_counter() - start)
        return times

    def burst(self, function: Function, arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        """See `Session`."""
        submit = self.submit
        return [x.result() for x in [submit(function, *each) for each in arguments]]

    def numbers(self, function: Function, count: int) -> list[Any]:
        """See `Session`."""
        submit = self.submit
        return [x.result() for x in [submit(function, i) for i in range(count)]]

    def call(self, function: Function, *arguments: object) -> Any:
        """See `Session`."""
        return self.submit(function, *arguments).result()


class ApplySession:
    """A pool with the ``apply_async()`` of ``multiprocessing.Pool``."""

    def __init__(self, pool: Any) -> None:
        self.apply_async = pool.apply_async

    def round_trips(self, function: Function, argument: object, count: int) -> list[float]:
        """See `Session`."""
        apply_async = self.apply_async
        times = []
        for _ in range(count):
            start = perf_counter()
            apply_async(function, (argument,)).get()
            times.append(perf_counter() - start)
        return times

    def burst(self, function: Function, arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        """See `Session`."""
        apply_async = self.apply_async
        return [x.get() for x in [apply_async(function, each) for each in arguments]]

    def numbers(self, function: Function, count: int) -> list[Any]:
        """See `Session`."""
        apply_async = self.apply_async
        return [x.get() for x in [apply_async(function, (i,)) for i in range(count)]]

    def call(self, function: Function, *arguments: object) -> Any:
        """See `Session`."""
        return self.apply_async(function, arguments).get()


class PebbleSession:
    """A ``pebble.ProcessPool``."""

    def __init__(self, pool: Any) -> None:
        self.schedule = pool.schedule

    def round_trips(self, function: Function, argument: object, count: int) -> list[float]:
        """See `Session`."""
        schedule = self.schedule
        times = []
        for _ in range(count):
            start = perf_counter()
            schedule(function, args=(argument,)).result()
            times.append(perf_counter() - start)
        return times

    def burst(self, function: Function, arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        """See `Session`."""
        schedule = self.schedule
        return [x.result() for x in [schedule(function, args=each) for each in arguments]]

    def numbers(self, function: Function, count: int) -> list[Any]:
        """See `Session`."""
        schedule = self.schedule
        return [x.result() for x in [schedule(function, args=(i,)) for i in range(count)]]

    def call(self, function: Function, *arguments: object) -> Any:
        """See `Session`."""
        return self.schedule(function, args=arguments).result()


class DaskSession:
    """A client of ``dask.distributed``. It would run equal calls once, unless told otherwise."""

    def __init__(self, client: Any) -> None:
        self.submit = client.submit

    def round_trips(self, function: Function, argument: object, count: int) -> list[float]:
        """See `Session`."""
        submit = self.submit
        times = []
        for _ in range(count):
            start = perf_counter()
            submit(function, argument, pure=False).result()
            times.append(perf_counter() - start)
        return times

    def burst(self, function: Function, arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        """See `Session`."""
        submit = self.submit
        return [x.result() for x in [submit(function, *each, pure=False) for each in arguments]]

    def numbers(self, function: Function, count: int) -> list[Any]:
        """See `Session`."""
        submit = self.submit
        return [x.result() for x in [submit(function, i, pure=False) for i in range(count)]]

    def call(self, function: Function, *arguments: object) -> Any:
        """See `Session`."""
        return self.submit(function, *arguments, pure=False).result()


class RaySession:
    """A Ray of this machine. A function is made known to it once, as it wants it."""

    def __init__(self, ray: Any) -> None:
        self._ray = ray
        self._known: dict[Function, Any] = {}

    def _submit(self, function: Function) -> Any:
        if function not in self._known:
            self._known[function] = self._ray.remote(function).remote
        return self._known[function]

    def round_trips(self, function: Function, argument: object, count: int) -> list[float]:
        """See `Session`."""
        submit, get = self._submit(function), self._ray.get
        times = []
        for _ in range(count):
            start = perf_counter()
            get(submit(argument))
            times.append(perf_counter() - start)
        return times

    def burst(self, function: Function, arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        """See `Session`."""
        submit = self._submit(function)
        return list(self._ray.get([submit(*each) for each in arguments]))

    def numbers(self, function: Function, count: int) -> list[Any]:
        """See `Session`."""
        submit = self._submit(function)
        return list(self._ray.get([submit(i) for i in range(count)]))

    def call(self, function: Function, *arguments: object) -> Any:
        """See `Session`."""
        return self._ray.get(self._submit(function)(*arguments))
