"""What a worker prints and logs: once, not mixed up with what the host has, and not lost.

A worker can be killed at any time and ends without the interpreter's own clean-up, and what it has
inherited are the host's streams, as some thread of the host had them at the fork.
"""

from __future__ import annotations

import contextlib
import io
import logging
import sys
from typing import Any

from libpool import _core

__all__ = ["enter_worker", "watch_streams"]


def enter_worker() -> None:
    """Make the inherited streams this process's own. Before anything is printed or logged."""
    done: list[object] = []
    for stream in _inherited_streams():
        if not any(stream is one for one in done):
            done.append(stream)
            with contextlib.suppress(ValueError):  # it is closed, or has no buffer any more
                _forget_inherited(stream)
    watch_streams()


_watched: list[io.TextIOWrapper] = []


def watch_streams() -> None:
    """Have the standard streams flushed in time. Also after the user may have replaced them."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and all(one is not stream for one in _watched):
            _watched.append(stream)
            with contextlib.suppress(ValueError):  # it is closed, or has no buffer any more
                _flush_in_time(stream)


def _inherited_streams() -> list[Any]:
    streams: list[Any] = [sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__]
    for reference in getattr(logging, "_handlerList", ()):
        handler = reference()
        if isinstance(handler, logging.StreamHandler):
            streams.append(handler.stream)
    return streams


class _Nowhere(io.RawIOBase):
    """What is written to it is gone."""

    def writable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0, /) -> int:
        return 0

    def write(self, data: Any, /) -> int:
        return len(data)


_nowhere = _Nowhere()


def _forget_inherited(stream: Any) -> None:
    """Drop what the host has in the stream's buffers, and the lock that a thread of it may hold.

    What is in the buffers the host will write itself. The lock was held, for ever as seen from
    here, if a thread was in a system call that writes. `__init__` gives a buffer a new lock.
    """
    buffer = stream.buffer if isinstance(stream, io.TextIOWrapper) else stream
    if type(buffer) not in (io.BufferedWriter, io.BufferedRandom) or buffer.raw.closed:
        return
    raw = buffer.raw
    buffer.__init__(_nowhere)
    try:
        stream.flush()
    finally:
        buffer.__init__(raw)


def _flush_in_time(stream: io.TextIOWrapper) -> None:
    """Let lines be written as they are complete, and the rest when the job that printed it ends.

    So lines of several workers do not get mixed up, whatever pieces they were printed in; also
    where Python was told not to buffer (-u).
    """
    stream.reconfigure(line_buffering=True, write_through=False)
    write, flush = stream.write, stream.flush

    def write_and_note(text: str, /) -> int:
        written = write(text)
        if text:
            _core.note_output()
        else:
            flush()  # that is how print(end="") ends
        return written

    buffer: Any = stream.buffer
    if type(buffer) is io.BufferedWriter:
        write_bytes = buffer.write

        def write_bytes_and_note(data: Any, /) -> int:
            _core.note_output()
            return int(write_bytes(data))

        buffer.__dict__["write"] = write_bytes_and_note
    stream.__dict__["write"] = write_and_note
