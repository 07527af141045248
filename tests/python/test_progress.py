"""Progress bars of maps."""

from __future__ import annotations

import io
import os
import pty
import select
import subprocess
import sys
import termios
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import Gate, pass_gates, program, until

from libpool import Pool

tqdm = pytest.importorskip("tqdm")


def square(x: int) -> int:
    return x * x


def add(x: int, y: int) -> int:
    return x + y


RUNS: dict[str, Callable[[Pool, Any], Any]] = {
    "map": lambda pool, progress: pool.map(square, range(50), progress=progress),
    "map in chunks": lambda pool, progress: pool.map(square, range(50), 7, progress=progress),
    "starmap": lambda pool, progress: pool.starmap(add, [(1, 2)] * 50, progress=progress),
    "map_async": lambda pool, progress: pool.map_async(square, range(50), progress=progress).get(),
    "starmap_async": lambda pool, progress: pool.starmap_async(
        add, [(1, 2)] * 50, callback=len, progress=progress
    ).get(),
    "imap": lambda pool, progress: list(pool.imap(square, range(50), progress=progress)),
    "imap_unordered": lambda pool, progress: list(
        pool.imap_unordered(square, range(50), progress=progress)
    ),
}


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
def test_a_dict_has_keywords_for_tqdm(pool: Pool, run: Callable[[Pool, Any], Any]) -> None:
    text = io.StringIO()
    assert len(run(pool, {"file": text, "desc": "squares", "mininterval": 0})) == 50
    until(lambda: text.getvalue().endswith("\n"))  # that of map_async is closed by its thread
    assert "squares: 100%" in text.getvalue()
    assert "50/50" in text.getvalue()


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
def test_true_shows_nothing_where_stderr_is_no_terminal(
    pool: Pool, run: Callable[[Pool, Any], Any], capfd: pytest.CaptureFixture[str]
) -> None:
    assert len(run(pool, True)) == 50
    assert len(run(pool, False)) == 50
    assert capfd.readouterr() == ("", "")


def test_true_shows_a_bar_on_a_terminal_and_nothing_on_stdout(tmp_path: Path) -> None:
    path = program(
        tmp_path / "bar.py",
        """
        import libpool
        with libpool.Pool(2) as pool:
            pool.map(abs, range(100), progress=True)
        """,
    )
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    try:
        process = subprocess.run(
            [sys.executable, str(path)], stdout=subprocess.PIPE, stderr=theirs, timeout=60
        )
        assert process.returncode == 0
        assert process.stdout == b""
        shown = b""
        while b"100/100" not in shown:
            assert select.select([ours], [], [], 20)[0], shown
            shown += os.read(ours, 65536)
    finally:
        os.close(ours)
        os.close(theirs)


def test_a_bar_without_a_total_counts(pool: Pool) -> None:
    text = io.StringIO()
    results = pool.imap(square, iter(range(50)), progress={"file": text})
    assert len(list(results)) == 50
    assert "50it" in text.getvalue()


def test_a_bar_moves_as_items_end(started: Gate, held: Gate, pool: Pool) -> None:
    text = io.StringIO()
    progress = {"file": text, "mininterval": 0, "miniters": 1}
    results: list[object] = []
    thread = threading.Thread(
        target=lambda: results.extend(
            pool.starmap(pass_gates, [(started, held)] * 4, 1, progress=progress)
        )
    )
    thread.start()
    for count in range(1, 5):
        started.wait_for()
        held.open()
        until(lambda count=count: f"{count}/4" in text.getvalue())
    thread.join()
    assert results == [None] * 4


def test_a_bar_is_closed_when_the_map_fails(pool: Pool) -> None:
    text = io.StringIO()
    with pytest.raises(TypeError):
        pool.map(abs, ["x", "y"], progress={"file": text})
    assert text.getvalue().endswith("\n")


def test_a_bar_goes_on_after_an_exception_in_a_lazy_map(pool: Pool) -> None:
    text = io.StringIO()
    iterator = pool.imap(abs, [1, "x", 3], progress={"file": text})
    assert next(iterator) == 1
    with pytest.raises(TypeError):
        next(iterator)
    assert list(iterator) == [3]
    assert "3/3" in text.getvalue() and text.getvalue().endswith("\n")


def test_a_bar_of_a_closed_iterator_is_closed(pool: Pool) -> None:
    text = io.StringIO()
    iterator = pool.imap(square, range(10**6), progress={"file": text})
    next(iterator)
    assert not text.getvalue().endswith("\n")
    iterator.close()
    assert text.getvalue().endswith("\n")


@pytest.mark.parametrize("progress", [1, None, "yes", ["desc"]], ids=repr)
@pytest.mark.parametrize("method", ["map", "starmap", "map_async", "imap", "imap_unordered"])
def test_what_is_neither_is_refused(pool: Pool, method: str, progress: object) -> None:
    with pytest.raises(TypeError, match="progress must be True, False or a dict of keywords"):
        getattr(pool, method)(abs, [1], progress=progress)
    assert pool.stats()["jobs_started"] == 0


def test_unknown_keywords_are_tqdms_to_refuse(pool: Pool) -> None:
    with pytest.raises(Exception, match="nonsense"):
        pool.map(abs, [1], progress={"nonsense": 5})


def test_a_missing_tqdm_is_named(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    with pytest.raises(ImportError, match=r"pip install 'libpool\[progress\]'"):
        pool.map(abs, [1], progress=True)
    assert pool.map(abs, [-1]) == [1]


def test_tqdm_is_not_imported_unless_asked_for() -> None:
    code = (
        "import sys, libpool\n"
        "with libpool.Pool(1) as pool:\n"
        "    pool.map(abs, [1]); list(pool.imap(abs, [1]))\n"
        "print('tqdm' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (run.stdout, run.stderr) == ("False\n", "")


def test_a_notebook_shows_its_own_bar(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    import tqdm.auto

    made: list[dict[str, Any]] = []

    class Fake:
        def __init__(self, **options: Any) -> None:
            made.append(options)

        def update(self, n: int) -> None:
            pass

        def close(self) -> None:
            pass

    class Notebook(Fake):
        __module__ = "tqdm.notebook"

    for kind in (Fake, Notebook):
        monkeypatch.setattr(tqdm.auto, "tqdm", kind)
        pool.map(abs, [1], progress=True)
    assert made == [{"total": 1, "disable": None}, {"total": 1, "disable": False}]
