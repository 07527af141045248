"""What workers print appears once, in whole lines, and is not lost, however they end."""

from __future__ import annotations

import collections
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support import program, run

PRELUDE = """
import fcntl, os, signal, sys, termios, threading, time
from libpool import Executor, Pool, WorkerDied
"""


def output_of(
    tmp_path: Path, code: str, *args: str, to: str = "pipe", unbuffered: bool = False
) -> str:
    """What a program prints, to a pipe or a file."""
    path = program(tmp_path / "printing.py", PRELUDE)
    with path.open("a") as file:
        file.write(program(tmp_path / "part.py", code).read_text())
    if to == "pipe":
        return run(path, *args)
    environment = {**os.environ, "PYTHONUNBUFFERED": "x" if unbuffered else ""}
    with open(tmp_path / "output", "w+") as output:
        done = subprocess.run(
            [sys.executable, str(path), *args],
            stdout=output,
            stderr=subprocess.STDOUT,
            timeout=40,
            env=environment,
            check=False,
        )
        output.seek(0)
        text = output.read()
    assert done.returncode == 0, text
    return text


@pytest.mark.parametrize("to", ["pipe", "file"])
@pytest.mark.parametrize("end", ["", "\n"])
@pytest.mark.parametrize(
    "how",
    ["nothing", "with", "close", "terminate", "kill", "exit", "replace", "limit", "host exit"],
)
def test_what_is_printed_appears_once_however_the_worker_ends(
    tmp_path: Path, how: str, end: str, to: str
) -> None:
    text = output_of(
        tmp_path,
        """
        how, end = sys.argv[1], sys.argv[2]
        held = os.pipe()

        def job(number):
            print(f"<{number}>", end=end)
            if how == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            elif how == "exit":
                os._exit(3)
            elif how == "limit":
                os.read(held[0], 1)

        if __name__ == "__main__":
            print("host", end=end)
            pool = Pool(2, maxtasksperchild=1 if how == "replace" else None)
            futures = [
                pool.options(timeout=0.2 if how == "limit" else None).submit(job, number)
                for number in range(4)
            ]
            if how in ("kill", "exit", "limit"):
                assert all(f.exception() is not None for f in futures)
                pool.terminate()
            elif how == "close":
                pool.close()
                pool.join()
            elif how == "with":
                with pool:
                    for future in futures:
                        future.result()
            elif how != "host exit":
                for future in futures:
                    future.result()
                pool.terminate()
            else:
                for future in futures:
                    future.result()
                pool.close()
        """,
        how,
        end,
        to=to,
    )
    assert text.count("host") == 1
    pieces = text.replace("host", "").replace("\n", "").replace("><", "> <").split()
    assert sorted(pieces) == ["<0>", "<1>", "<2>", "<3>"]


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
@pytest.mark.parametrize("how", ["write", "bytes", "lines", "print"])
def test_a_part_of_a_line_is_there_before_the_jobs_result(
    tmp_path: Path, how: str, stream: str
) -> None:
    text = output_of(
        tmp_path,
        """
        how, name = sys.argv[1:]

        def job():
            stream = getattr(sys, name)
            if how == "write":
                stream.write("part")
            elif how == "bytes":
                stream.buffer.write(b"part")
            elif how == "lines":
                stream.writelines(["pa", "rt"])
            else:
                print("part", end="", file=stream)

        if __name__ == "__main__":
            own = os.dup(1)
            read, write = os.pipe()
            os.dup2(write, {"stdout": 1, "stderr": 2}[name])
            os.set_blocking(read, False)
            with Pool(1) as pool:
                for _ in range(100):
                    pool.apply(job)
                    assert os.read(read, 100) == b"part"
            os.write(own, b"done")
        """,
        how,
        stream,
    )
    assert text == "done"


@pytest.mark.parametrize(("to", "unbuffered"), [("pipe", False), ("file", False), ("file", True)])
def test_lines_of_several_workers_stay_whole(tmp_path: Path, to: str, unbuffered: bool) -> None:
    text = output_of(
        tmp_path,
        """
        def job(number):
            for line in range(20):
                print("begin", number, line, "x" * 200, "end")
                print("begin", number, line, "y" * 200, "end", file=sys.stderr)

        if __name__ == "__main__":
            sys.stderr = sys.stdout
            with Pool(4) as pool:
                pool.map(job, range(50), chunksize=1)
        """,
        to=to,
        unbuffered=unbuffered,
    )
    lines = collections.Counter(text.splitlines())
    wanted = [
        f"begin {number} {line} {letter * 200} end"
        for number in range(50)
        for line in range(20)
        for letter in "xy"
    ]
    assert lines == collections.Counter(wanted)


def test_what_a_thread_prints_that_outlives_its_job_is_not_lost(tmp_path: Path) -> None:
    text = output_of(
        tmp_path,
        """
        def late():
            go.wait()
            sys.stdout.write("part")
            done.set()

        def job():
            global go, done
            go, done = threading.Event(), threading.Event()
            threading.Thread(target=late).start()

        def release():
            go.set()
            done.wait()

        if __name__ == "__main__":
            with Pool(1) as pool:
                pool.apply(job)
                pool.apply(release)
            print(" and the host")
        """,
    )
    assert text == "part and the host\n"


def test_a_large_output_is_complete(tmp_path: Path) -> None:
    text = output_of(
        tmp_path,
        """
        def job(letter):
            print(letter * 3_000_000)

        if __name__ == "__main__":
            with Executor(2) as executor:
                list(executor.map(job, "ab"))
        """,
    )
    assert (text.count("a"), text.count("b"), text.count("\n")) == (3_000_000, 3_000_000, 2)


def test_what_a_thread_of_the_host_prints_meanwhile_appears_once(tmp_path: Path) -> None:
    text = output_of(
        tmp_path,
        """
        ended = False

        def chatter():
            number = 0
            while not ended:
                number += 1
                sys.stdout.write(f"host {number}")
                sys.stdout.write("\\n")
            counts.append(number)

        def job(number):
            print("job", number)

        if __name__ == "__main__":
            counts = []
            sys.setswitchinterval(1e-5)
            sys.stdout.reconfigure(line_buffering=True)
            thread = threading.Thread(target=chatter)
            thread.start()
            for number in range(100):
                with Pool(1) as pool:
                    pool.apply(job, (number,))
            ended = True
            thread.join()
            sys.stdout.flush()
            print("counted", counts[0])
        """,
    )
    # Making a pool flushes the host's half lines: a job's line may follow in the same line.
    assert sorted(map(int, re.findall("job ([0-9]+)\n", text))) == list(range(100))
    total = int(text.split()[-1])
    assert text.count("host ") == total


def test_a_worker_prints_while_a_thread_of_the_host_is_stuck_in_printing(tmp_path: Path) -> None:
    # The thread holds the lock of the stream's buffer when the worker is forked.
    text = output_of(
        tmp_path,
        """
        def job():
            print("from the worker")
            return 5

        def in_pipe(end):
            return int.from_bytes(fcntl.ioctl(end, termios.FIONREAD, bytes(4)), sys.byteorder)

        def print_much():
            out.write("x" * 300_000)
            out.flush()

        if __name__ == "__main__":
            import multiprocessing
            multiprocessing.set_start_method("fork")  # with threads the default is another
            read, write = os.pipe()
            own, sys.stdout = sys.stdout, os.fdopen(write, "w")
            out = sys.stdout
            thread = threading.Thread(target=print_much)
            thread.start()
            room = fcntl.fcntl(read, fcntl.F_GETPIPE_SZ)
            while in_pipe(read) < room:  # then it is in the system call
                time.sleep(0.001)
            sys.stdout = None  # the host does not wait for it
            sys.__stdout__ = out
            def begin():
                sys.stdout = out
            with Pool(1, initializer=begin) as pool:
                future = pool.submit(job)
                text = b""
                while b"worker" not in text:
                    text += os.read(read, 1 << 16)
                assert future.result(timeout=20) == 5
                while thread.is_alive():
                    text += os.read(read, 1 << 16)
            assert text.count(b"x") <= 300_000 and text.count(b"worker") == 1
            sys.stdout = own
            print("done")
        """,
    )
    assert text == "done\n"


def test_a_worker_reads_nothing_while_a_thread_of_the_host_waits_for_input(tmp_path: Path) -> None:
    text = output_of(
        tmp_path,
        """
        def job():
            try:
                input()
            except EOFError:
                return sys.stdin.read()

        if __name__ == "__main__":
            read, write = os.pipe()
            os.dup2(read, 0)
            os.write(write, b"first\\nsecond\\n")
            assert input() == "first"
            lines = []
            def wait():
                lines.append(input())
                lines.append(input())
            thread = threading.Thread(target=wait)
            thread.start()
            while not lines:
                time.sleep(0.001)
            with Pool(1) as pool:
                assert pool.submit(job).result(timeout=20) == ""
            os.write(write, b"third\\n")
            thread.join()
            print(*lines)
        """,
    )
    assert text == "second third\n"


def test_a_worker_without_standard_streams_works(tmp_path: Path) -> None:
    text = output_of(
        tmp_path,
        """
        def job(x):
            print("nobody reads this")
            return x + 1

        if __name__ == "__main__":
            own = sys.stdout
            sys.stdout = sys.stderr = None
            with Pool(1) as pool:
                assert pool.apply(job, (1,)) == 2
            closed = open(os.devnull, "w")
            closed.close()
            sys.stdout = closed
            with Pool(1) as pool:
                assert pool.apply(abs, (-1,)) == 1
            print("done", file=own)
        """,
    )
    assert text == "done\n"
