"""Runs a host with a fault in a session of its own, and looks at it from outside."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from catalogue import Fault
from events import FOLDER, PIPE

HERE = Path(__file__).resolve().parent
SHARED_MEMORY = Path("/dev/shm")
GRACE = 1.0
"""Seconds after the host's end in which its processes should have ended, too."""
LINES = 30
"""Of what was printed, so many lines are kept."""

Event = dict[str, Any]


@dataclass
class Observation:
    """What was seen of one host.

    Attributes
    ----------
    events : list of dict
        What the host told, without the events of its jobs.
    counts : dict
        How often each event came.
    injected, ended : float, optional
        When the fault was injected from outside, and when the host ended; as `time.monotonic`.
    exit_code : int, optional
        As `subprocess.Popen.returncode` has it; None if the host hung.
    hung_in : str, optional
        The phase in which it hung.
    left : list of str
        The processes that were left `GRACE` seconds after the host's end.
    gone_after : float, optional
        Seconds from the host's end until all were gone.
    shared, temporary : list of str
        New entries in ``/dev/shm``, and temporary files, that were left.
    lines : int
        How many lines host and workers wrote to stdout and stderr.
    printed : list of str
        The last of these.
    """

    fault: str
    pool: str
    events: list[Event] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    injected: float | None = None
    ended: float | None = None
    exit_code: int | None = None
    hung_in: str | None = None
    left: list[str] = field(default_factory=list)
    gone_after: float | None = None
    shared: list[str] = field(default_factory=list)
    temporary: list[str] = field(default_factory=list)
    lines: int = 0
    printed: list[str] = field(default_factory=list)

    def event(self, name: str) -> Event | None:
        """Return the first event of this name."""
        return next((event for event in self.events if event["event"] == name), None)


# ---- Processes ----------------------------------------------------------------------------------


def stat_of(pid: int) -> list[str]:
    """Return the fields of ``/proc/PID/stat`` from the state on; none if it is not there."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


class Session:
    """The processes that a host has started, directly or not.

    They are known by their session; those that have left it, by the environment that they
    inherited.
    """

    def __init__(self, leader: int, folder: Path) -> None:
        self.leader = leader
        self._mark = f"{FOLDER}={folder}".encode()

    def members(self, state: str = "ZX", *, are: bool = False) -> list[int]:
        """List those whose state is not (or is) among `state`."""
        found = []
        for entry in os.listdir("/proc"):
            if not entry.isdigit() or int(entry) == os.getpid():
                continue
            fields = stat_of(int(entry))
            if fields and (fields[0] in state) == are and self._has(int(entry), fields):
                found.append(int(entry))
        return found

    def _has(self, pid: int, fields: list[str]) -> bool:
        if int(fields[3]) == self.leader:
            return True
        with suppress(OSError):
            return self._mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        return False

    def kill(self) -> None:
        """Kill them all, and reap those that have become ours."""
        deadline = time.monotonic() + 10
        while (members := self.members()) and time.monotonic() < deadline:
            for pid in members:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.005)
        for pid in self.members("Z", are=True):
            with suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)


def command_of(pid: int) -> str:
    """Return name and command line of a process, shortened."""
    with suppress(OSError):
        name = Path(f"/proc/{pid}/comm").read_text().strip()
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
        return f"{name}: {Path(command.split(' ')[0]).name} {command.partition(' ')[2]}"[:200]
    return "gone"


# ---- Shared memory ------------------------------------------------------------------------------


def shared_names() -> set[str]:
    """List what there is in ``/dev/shm``."""
    with suppress(OSError):
        return set(os.listdir(SHARED_MEMORY))
    return set()


def mapped_by_others(session: Session) -> str:
    """Return the memory maps of all processes outside the session, as one text."""
    own = set(session.members())
    maps = []
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) not in own:
            with suppress(OSError):
                maps.append(Path(f"/proc/{entry}/maps").read_text())
    return "".join(maps)


def new_shared(before: set[str], session: Session) -> list[str]:
    """List what has come since `before` and is not in use by somebody else on this machine."""
    new = shared_names() - before
    if not new:
        return []
    elsewhere = mapped_by_others(session)
    return sorted(name for name in new if f"{SHARED_MEMORY}/{name}" not in elsewhere)


# ---- The run ------------------------------------------------------------------------------------


class Run:
    """A host from its start to the last of its processes."""

    def __init__(self, fault: Fault, pool: str, limit: float, folder: Path) -> None:
        self.fault = fault
        self.limit = limit
        self.seen = Observation(fault.name, pool)
        self._folder = folder
        self._pipe = os.open(folder / PIPE, os.O_RDWR | os.O_NONBLOCK)
        self._rest = b""
        self._phase = "start"
        self._deadline = time.monotonic() + limit
        self._shared = shared_names()
        self._output = open(folder / "output", "wb")  # noqa: SIM115 -- closed in close()
        self.process = self._start(pool)
        self.session = Session(self.process.pid, folder)

    def _start(self, pool: str) -> subprocess.Popen[bytes]:
        scratch = self._folder / "tmp"
        scratch.mkdir()
        return subprocess.Popen(
            [sys.executable, str(HERE / "host.py"), pool, self.fault.name, str(self.limit)],
            env=os.environ
            | {FOLDER: str(self._folder), "PYTHONPATH": str(HERE), "TMPDIR": str(scratch)},
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=self._output,
            start_new_session=True,
        )

    def close(self) -> None:
        """Kill what is left, and give everything back."""
        self.session.kill()
        self.process.wait()
        self._remove_named()
        os.close(self._pipe)
        self._output.close()

    def _remove_named(self) -> None:
        """Remove what is left in ``/dev/shm`` and has the host's number in its name."""
        for name in shared_names() - self._shared:
            if str(self.process.pid) in name.replace("-", "_").split("_"):
                with suppress(FileNotFoundError):
                    (SHARED_MEMORY / name).unlink()

    # ---- While the host runs

    def watch(self) -> None:
        """Follow the host to its end, or until a phase takes longer than it should."""
        descriptor = os.pidfd_open(self.process.pid)
        try:
            while True:
                left = self._deadline - time.monotonic()
                ready, _, _ = select.select([self._pipe, descriptor], [], [], max(0.0, left))
                if self._pipe in ready:
                    self._read()
                elif descriptor in ready:
                    self.seen.ended = time.monotonic()
                    self.seen.exit_code = self.process.wait()
                    return
                elif left <= 0:
                    self.seen.hung_in = self._phase
                    return
        finally:
            os.close(descriptor)

    def _read(self) -> None:
        *lines, self._rest = (self._rest + os.read(self._pipe, 1 << 16)).split(b"\n")
        for line in lines:
            self._note(json.loads(line))

    def _note(self, event: Event) -> None:
        name = event["event"]
        count = self.seen.counts[name] = self.seen.counts.get(name, 0) + 1
        if name == "phase":
            self._phase = event["name"]
            self._deadline = time.monotonic() + event["limit"]
        if name not in ("started", "finished"):
            self.seen.events.append(event)
        if self.fault.inject is not None and (name, count) == self.fault.when:
            time.sleep(0.1)  # the host waits by now
            self.seen.injected = time.monotonic()
            self._deadline = self.seen.injected + self.limit
            self.fault.inject(self.process.pid)

    # ---- After that

    def look_around(self) -> None:
        """See what the host has left behind."""
        if self.seen.ended is not None:
            self._wait_for_the_others(self.seen.ended)
            self.seen.shared = new_shared(self._shared, self.session)
            self.seen.temporary = sorted(os.listdir(self._folder / "tmp"))
        lines = (self._folder / "output").read_text(errors="replace").splitlines()
        self.seen.lines = len(lines)
        self.seen.printed = lines[-LINES:]

    def _wait_for_the_others(self, ended: float) -> None:
        while members := self.session.members():
            if time.monotonic() > ended + GRACE:
                self.seen.left = [command_of(pid) for pid in members]
                return
            time.sleep(0.01)
        self.seen.gone_after = time.monotonic() - ended


@contextmanager
def prepared_folder() -> Iterator[Path]:
    """Make a folder with the pipe for the events."""
    with tempfile.TemporaryDirectory(prefix="faults-", ignore_cleanup_errors=True) as name:
        os.mkfifo(Path(name) / PIPE)
        yield Path(name)


def observe(fault: Fault, pool: str, limit: float) -> Observation:
    """Run one host.

    Parameters
    ----------
    fault : Fault
        What happens.
    pool : str
        A name in `pools.SUBJECTS`.
    limit : float
        Seconds in which all jobs should have ended.
    """
    with prepared_folder() as folder:
        run = Run(fault, pool, limit, folder)
        try:
            run.watch()
            run.look_around()
        finally:
            run.close()
    return run.seen
