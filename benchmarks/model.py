"""What a pool can do on a machine of so many cores: the model behind docs/scaling.md.

A job costs instructions, which take the same time wherever they run, and cache lines that move
between cores. A line that one core has written and another reads and writes next is one
*hand-over*: the writer's copies are taken away, the line is moved. What it costs depends on the
machine, and on whether somebody waits for it:

- whoever waits for one hand-over after the other pays the *latency* of each, half of the time in
  which a line goes to and fro (``c/machine.c``, and the published tables of core-to-core latency);
- whoever goes through many lines that another core has written pays much less for each, since cores
  fetch them ahead.

Which of the two it is depends on how far the workers are behind the host. Where many jobs wait,
lines are *streamed*; where workers take a job as soon as it is there, host and worker are at the
same line and wait for each other. A prediction is therefore a range.

The numbers of hand-overs are counted, not guessed (``c/lines.c``); the instructions' time is
measured where nothing moves (``c/cycle.c``). All times are nanoseconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Handover:
    """One cache line that moves for each job, as ``c/lines.c`` prints it.

    Attributes
    ----------
    side : str
        Who waits for it: ``"host"`` or ``"workers"``.
    line : str
        Which it is.
    moves, claims : float
        How often, for each job, it was moved to the one who waits; how often others' copies were
        taken away.
    fields : str
        What is in it, as far as it is used.
    """

    side: str
    line: str
    moves: float
    claims: float
    fields: str

    @property
    def count(self) -> float:
        """Hand-overs for each job: half of it is the move, half the claim."""
        return (self.moves + self.claims) / 2


@dataclass(frozen=True)
class Machine:
    """What a machine asks for a hand-over.

    Attributes
    ----------
    latency : float
        For one that is waited for.
    streamed : float
        For each of many in a row.
    """

    latency: float
    streamed: float


@dataclass(frozen=True)
class Costs:
    """What a job costs, whatever the machine.

    Attributes
    ----------
    submit, run, collect : float
        Time of the instructions: to submit; to claim, run and end; to wait, read and release.
    alone : float
        Hand-overs of a job that is waited for before the next is submitted.
    host, worker : float
        Those of many jobs that wait, on each side.
    host_near, worker_near : float
        Those of jobs that are taken as soon as they are there.
    ring : float
        Those that workers wait for in turn, when they take jobs from the same ring: between two
        jobs, these lines go from one worker to the next.
    """

    submit: float
    run: float
    collect: float
    alone: float
    host: float
    worker: float
    host_near: float
    worker_near: float
    ring: float


def costs(
    cycle: dict[str, float],
    alone: Sequence[Handover],
    one: Sequence[Handover],
    several: Sequence[Handover],
) -> Costs:
    """Add up what was counted: in a lone play, in a burst with one worker, and with several."""
    more = _of(several, "workers") - _of(one, "workers")
    return Costs(
        submit=cycle["submit"],
        run=cycle["run"],
        collect=cycle["collect"],
        alone=_of(alone, "host") + _of(alone, "workers"),
        host=_of(one, "host"),
        worker=_of(one, "workers"),
        host_near=_of(alone, "host"),
        worker_near=_of(alone, "workers"),
        # Those that one worker has to itself go from hand to hand with several. What remains of a
        # line that several jobs share, as of cells, is one whole hand-over then.
        ring=round(more),
    )


def _of(lines: Sequence[Handover], side: str) -> float:
    return sum(each.count for each in lines if each.side == side)


def round_trip(cost: Costs, machine: Machine) -> float:
    """Predict submit to result, with a worker that spins: nothing is done at the same time."""
    return cost.submit + cost.run + cost.collect + cost.alone * machine.latency


def host_time(cost: Costs, machine: Machine) -> tuple[float, float]:
    """Predict what a job of many takes the host: where many wait, and where none does."""
    own = cost.submit + cost.collect
    far, near = cost.host * machine.streamed, cost.host_near * machine.latency
    return own + min(far, near), own + max(far, near)


def worker_time(cost: Costs, machine: Machine) -> tuple[float, float]:
    """Predict what a job of many that does nothing takes a worker: the same two."""
    far, near = cost.worker * machine.streamed, cost.worker_near * machine.latency
    return cost.run + min(far, near), cost.run + max(far, near)


def ring_time(cost: Costs, machine: Machine) -> tuple[float, float]:
    """Predict for how long a job that waits keeps the ring from other workers: from ... to.

    At best a worker takes several jobs before another gets hold of the lines, so that the ring
    gives as many as one worker can take. At worst they take turns, job by job.
    """
    best, _ = worker_time(cost, machine)
    return best, max(best, cost.ring * machine.latency)


def throughput(
    cost: Costs, machine: Machine, workers: int, length: float, cores: int | None = None
) -> tuple[float, float]:
    """Predict jobs per second: from ... to.

    Parameters
    ----------
    cost : Costs
        What a job costs.
    machine : Machine
        What a hand-over costs.
    workers : int
        How many there are.
    length : float
        What a job does, in ns.
    cores : int, optional
        That host and workers share; default: each has its own.
    """
    found = []
    for end in (1, 0):  # the worst, the best
        host, worker = host_time(cost, machine)[end], worker_time(cost, machine)[end] + length
        ring = ring_time(cost, machine)[end] if workers > 1 else 0.0
        together = (host + worker) / cores if cores is not None else 0.0
        found.append(1e9 / max(host, worker / workers, ring, together))
    return found[0], found[1]


def enough(cost: Costs, machine: Machine, workers: int, share: float = 0.9) -> tuple[float, float]:
    """Predict from which length on jobs keep the workers busy for this share of the time.

    Returns the length, in ns, at best and at worst.
    """
    found = []
    for end in (0, 1):
        host, worker = host_time(cost, machine)[end], worker_time(cost, machine)[end]
        ring = ring_time(cost, machine)[end] if workers > 1 else 0.0
        found.append(max(worker * share / (1 - share), share * workers * max(host, ring)))
    return found[0], found[1]
