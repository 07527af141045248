"""Logging and warnings that were set up in the host work in the workers."""

from __future__ import annotations

import collections
import logging
import logging.handlers
import multiprocessing
import queue
import re
import warnings
from pathlib import Path
from typing import Any

import pytest
from support import program, run

from libpool import Executor, Pool

HERE = Path(__file__)


def log(number: int) -> None:
    logging.getLogger("test.jobs").warning("job %d", number)


def warn(text: str) -> int:
    warnings.warn(text, stacklevel=1)
    return 1


WARN_LINE = next(
    number
    for number, line in enumerate(HERE.read_text().splitlines(), 1)
    if "warnings.warn(text" in line
)


@pytest.fixture
def logger() -> Any:
    logger = logging.getLogger("test.jobs")
    logger.propagate = False
    yield logger
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
    logger.propagate = True


def test_a_file_handler_of_the_host_gets_each_record_once(logger: Any, tmp_path: Path) -> None:
    handler = logging.FileHandler(tmp_path / "log")
    handler.setFormatter(logging.Formatter("%(processName)s %(threadName)s %(message)s"))
    logger.addHandler(handler)
    logger.warning("host")
    with Pool(2) as pool:
        pool.map(log, range(200), chunksize=1)
    lines = (tmp_path / "log").read_text().splitlines()
    assert lines[0] == "MainProcess MainThread host"
    assert collections.Counter(line.split(" ", 1)[1] for line in lines[1:]) == collections.Counter(
        f"MainThread job {number}" for number in range(200)
    )
    assert {line.split()[0] for line in lines[1:]} <= {"libpool-0", "libpool-1"}


def test_records_go_through_a_multiprocessing_queue_to_a_listener(logger: Any) -> None:
    records: Any = multiprocessing.get_context("fork").Queue()
    found: queue.Queue[logging.LogRecord] = queue.Queue()
    listener = logging.handlers.QueueListener(records, logging.handlers.QueueHandler(found))
    logger.addHandler(logging.handlers.QueueHandler(records))
    listener.start()
    try:
        with Executor(2, max_tasks_per_child=7) as executor:
            list(executor.map(log, range(50)))
        messages = sorted(found.get(timeout=20).getMessage() for _ in range(50))
    finally:
        listener.stop()
        records.close()
        records.join_thread()
    assert messages == sorted(f"job {number}" for number in range(50))
    assert found.empty()


def test_workers_log_while_a_thread_of_the_host_did_when_they_were_forked(tmp_path: Path) -> None:
    # The thread is, at the fork, anywhere: in a handler's lock, in a write, between two.
    text = run(
        program(
            tmp_path / "chatter.py",
            """
            import logging, multiprocessing, re, sys, threading, time
            from libpool import Pool

            def job(number):
                for handler in (1, 2):
                    logging.getLogger("job").warning("job %d %d", number, handler)
                print("job", number)

            if __name__ == "__main__":
                path = sys.argv[1]
                multiprocessing.set_start_method("fork")  # with threads the default is another
                logging.basicConfig(
                    format="%(message)s",
                    handlers=[logging.FileHandler(path), logging.StreamHandler(sys.stdout)],
                )
                ended, count = False, 0

                def chatter():
                    global count
                    while not ended:
                        count += 1
                        logging.warning("host %d", count)
                        time.sleep(0)

                sys.setswitchinterval(1e-5)
                threads = [threading.Thread(target=chatter)]
                for thread in threads:
                    thread.start()
                for number in range(100):
                    with Pool(1) as pool:
                        pool.submit(job, number).result(timeout=20)
                ended = True
                for thread in threads:
                    thread.join()
                lines = open(path).read().splitlines()
                logged = sorted(line for line in lines if line.startswith("job"))
                wanted = sorted(f"job {n} {i}" for n in range(100) for i in (1, 2))
                assert logged == wanted, set(logged) ^ set(wanted)
                assert [line for line in lines if line.startswith("host")] == [
                    f"host {n}" for n in range(1, count + 1)
                ]
                print("counted", count)
            """,
        ),
        str(tmp_path / "log"),
    )
    lines = text.splitlines()
    total = int(lines[-1].split()[1])
    assert [line for line in lines if line.startswith("host")] == [
        f"host {n}" for n in range(1, total + 1)
    ]
    assert sum(line.startswith("job") for line in lines) == 300


def test_captured_warnings_become_records_in_the_worker(tmp_path: Path) -> None:
    handler = logging.FileHandler(tmp_path / "log")
    logger = logging.getLogger("py.warnings")
    logger.addHandler(handler)
    logger.propagate = False
    logging.captureWarnings(True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            with Pool(1) as pool:
                pool.apply(warn, ("captured",))
    finally:
        logging.captureWarnings(False)
        logger.removeHandler(handler)
        logger.propagate = True
        handler.close()
    text = (tmp_path / "log").read_text()
    assert f"{HERE}:{WARN_LINE}: UserWarning: captured" in text


def test_a_warning_points_at_the_users_line(tmp_path: Path) -> None:
    path = program(
        tmp_path / "warner.py",
        """
        import sys, warnings
        from libpool import Pool

        def job():
            warnings.warn("look here")  # the line
            return 1

        if __name__ == "__main__":
            sys.stderr = sys.stdout
            with Pool(1) as pool:
                assert pool.apply(job) == 1
                value = [1]
                def by_value():
                    value.append(1)
                    warnings.warn("and here")  # another line
                assert pool.apply(by_value) is None
        """,
    )
    lines = run(path).splitlines()
    assert lines == [
        f"{path}:6: UserWarning: look here",
        '  warnings.warn("look here")  # the line',
        f"{path}:16: UserWarning: and here",
        '  warnings.warn("and here")  # another line',
    ]


def test_filters_of_the_host_hold_in_the_worker() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with Executor(1) as executor, pytest.raises(UserWarning, match="is an error") as caught:
            executor.submit(warn, "is an error").result()
        assert f"line {WARN_LINE}" in str(caught.value.__cause__)
        warnings.simplefilter("ignore")
        with Executor(1) as executor:
            assert executor.submit(warn, "is ignored").result() == 1


def test_a_function_by_value_fails_at_its_own_line(workers: Any) -> None:
    captured: list[int] = []

    def by_value() -> None:
        captured.append(1)
        raise KeyError("by value")

    with pytest.raises(KeyError) as caught:
        workers.submit(by_value).result()
    trace = str(caught.value.__cause__)
    assert f'File "{HERE}", line {by_value.__code__.co_firstlineno + 2}, in by_value' in trace
    assert 'raise KeyError("by value")' in trace


REPL = '''
import linecache, sys, warnings
from libpool import Executor

if __name__ == "__main__":
    sys.stderr = sys.stdout
    executor = Executor(1)
    executor.submit(abs, 1).result()
    source = """
import warnings

def cell(kind):
    warnings.warn("from a cell", stacklevel=1)
    def inner():
        raise ValueError("in a cell")  # a comment
    if kind:
        inner()
    return lambda: 1 / 0  # another
"""
    name = "<ipython-input-1-abc>"
    linecache.cache[name] = (len(source), None, source.splitlines(True), name)
    exec(compile(source, name, "exec"), globals())
    for _ in range(2):
        try:
            executor.submit(cell, 1).result()
        except ValueError as error:
            print(error.__cause__)
    try:
        executor.submit(cell(0)).result()
    except ZeroDivisionError as error:
        print(error.__cause__)
    executor.shutdown()
'''


def test_lines_of_a_function_of_a_notebook_are_shown(tmp_path: Path) -> None:
    path = program(tmp_path / "notebook.py", REPL)
    text = run(path)
    assert text.count('File "<ipython-input-1-abc>", line 7, in inner') == 2
    assert text.count('raise ValueError("in a cell")') == 2
    warning = '<ipython-input-1-abc>:5: UserWarning: from a cell\n  warnings.warn("from a cell"'
    assert text.count(warning) == 3  # the last one from the host
    assert re.search(r"line 10, in <lambda>\n *return lambda: 1 / 0  # another", text)
