"""What a pool tells about itself."""

from __future__ import annotations

from typing import TypedDict

__all__ = ["Stats", "WorkerStats"]


class WorkerStats(TypedDict):
    """What one worker has done, and those that had its place before it.

    The members mean what they do in `Stats`.
    """

    pid: int
    """Its process id, or 0 while there is none."""
    jobs_running: int
    """More than 1 where a job waits for another that it submitted."""
    jobs_started: int
    jobs_done: int
    jobs_failed: int
    bytes_in: int
    bytes_out: int
    busy_time: float
    idle_time: float


class Stats(TypedDict):
    """What ``stats()`` of a pool returns: a plain dict with these keys.

    A call is a job, and so is a chunk of `map`. Each number is right by itself; a job may end
    between two of them. Looking costs the workers nothing.
    """

    workers: int
    """Worker processes, as configured."""
    alive: int
    """Those that there are now."""
    supervisor: int
    """The supervisor's process id, or 0 when it has ended."""
    workers_started: int
    """Including replacements."""
    jobs_waiting: int
    """For a worker, now."""
    jobs_running: int
    """Now."""
    jobs_started: int
    """Once for each try."""
    jobs_done: int
    """Returned."""
    jobs_failed: int
    """Raised, or their worker died, or they were late."""
    jobs_retried: int
    """Tries that ended with the worker's death and were followed by another."""
    bytes_in: int
    """Of arguments, as they travelled, of jobs that have returned or raised."""
    bytes_out: int
    """Of their results and exceptions, as they travelled."""
    busy_time: float
    """Seconds that the workers have had a job, all together."""
    idle_time: float
    """Seconds that they had none, or a job of theirs waited for another."""
    memory: int
    """Bytes of shared memory that are committed now."""
    shared_limit: int
    """How many these may become."""
    per_worker: list[WorkerStats]
    """In the order of their numbers."""
