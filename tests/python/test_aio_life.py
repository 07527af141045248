"""The end of loops and pools under asyncio; asyncio in jobs; other loops; the examples."""

from __future__ import annotations

import asyncio
import gc
import importlib.util
import os
import signal
import socket
import time
import weakref
from pathlib import Path
from typing import Any

import pytest
from support import MIB, Gate, open_descriptors, pass_gates, program, run, start, until
from support_aio import (
    keep_later,
    square,
    started_by_loop,
    until_async,
)

import libpool

HAS_UVLOOP = importlib.util.find_spec("uvloop") is not None


# ---- The end of a loop --------------------------------------------------------------------------


def test_jobs_finish_when_the_loop_is_closed_before(tmp_path: Path) -> None:
    path = program(
        tmp_path / "closed.py",
        """
        import asyncio, os, sys, time
        import libpool

        def touch(path):
            time.sleep(0.1)
            with open(path, "w"):
                pass
            return bytes(1 << 20)

        async def main(pool, names):
            for name in names:
                pool.aio.submit(touch, name)

        pool = libpool.Executor(2)
        names = [os.path.join(sys.argv[1], str(n)) for n in range(6)]
        asyncio.run(main(pool, names))
        pool.shutdown()
        print(all(map(os.path.exists, names)))
        """,
    )
    assert run(path, str(tmp_path)) == "True\n"


def test_a_closed_loop_lets_go_of_its_jobs_and_results(workers: Any) -> None:
    async def main() -> Any:
        future = workers.aio.submit(keep_later, list(range(1000)), 0.05)
        workers.aio.submit(square, 2)
        assert await workers.aio.submit(square, 3) == 9
        return weakref.ref(asyncio.get_running_loop()), weakref.ref(future)

    loop, future = asyncio.run(main())
    gc.collect()
    assert loop() is None and future() is None
    # Nobody knows these jobs any more, so the pool ends only when it has freed them by itself.
    workers.close()
    assert workers.join(20)


def test_descriptors_are_given_back_when_pools_come_and_go_in_one_loop() -> None:
    async def main() -> None:
        async def use() -> None:
            async with libpool.Pool(1).aio as calls:
                assert await calls.submit(square, 3) == 9
            with libpool.Executor(1) as executor:
                assert await executor.aio.submit(square, 4) == 16
            with libpool.Pool(1) as pool:
                assert await pool.aio.submit(square, 5) == 25
                pool.aio.submit(time.sleep, 30)

        await use()
        gc.collect()
        await asyncio.sleep(0.1)
        before = open_descriptors()
        for _ in range(5):
            await use()
        gc.collect()
        await until_async(lambda: open_descriptors() == before)

    asyncio.run(main())


def test_a_pool_that_is_dropped_while_awaited_finishes_its_jobs() -> None:
    async def main() -> None:
        executor = libpool.Executor(1)
        futures = [executor.aio.submit(keep_later, [n], 0.02) for n in range(5)]
        del executor
        assert await asyncio.gather(*futures) == [[n] for n in range(5)]

    asyncio.run(main())


class Interrupting:
    """Something that can be unpickled when Ctrl-C has been pressed once meanwhile."""

    interrupted = False

    def __reduce__(self) -> Any:
        return interrupt_once, ()


def interrupt_once() -> int:
    if not Interrupting.interrupted:
        Interrupting.interrupted = True
        raise KeyboardInterrupt
    return 7


def interrupting_after(held: Gate) -> Interrupting:
    held.wait()
    return Interrupting()


def test_a_loop_that_ctrl_c_left_gets_the_results_when_it_runs_again(
    held: Gate, workers: Any
) -> None:
    async def submit() -> list[Any]:  # the gate is shut, or the result might come meanwhile
        calls = [workers.aio.submit(square, n) for n in range(20)]
        return [*calls, workers.aio.submit(interrupting_after, held), *calls[:5]]

    async def collect(futures: list[Any]) -> list[int]:
        return await asyncio.gather(*futures)

    Interrupting.interrupted = False
    loop = asyncio.new_event_loop()
    try:
        futures = loop.run_until_complete(submit())
        held.open()
        with pytest.raises(KeyboardInterrupt):
            loop.run_until_complete(collect(futures))
        squares = [n * n for n in range(20)]
        assert loop.run_until_complete(collect(futures)) == [*squares, 7, *squares[:5]]
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        loop.close()


def test_a_fork_of_the_host_takes_nothing_from_the_loop(tmp_path: Path) -> None:
    path = program(
        tmp_path / "forks.py",
        """
        import asyncio, gc, os, time, warnings
        import libpool

        def later(n):
            time.sleep(0.05)
            return n

        async def main(pool):
            calls = [pool.aio.submit(later, n) for n in range(10)]
            warnings.simplefilter("ignore", DeprecationWarning)  # of fork, in a test
            child = os.fork()
            if child == 0:
                try:
                    pool.submit(later, 1)
                except RuntimeError:
                    del calls
                    gc.collect()
                    os._exit(0)
                os._exit(1)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            print(await asyncio.gather(*calls) == list(range(10)))

        with libpool.Pool(2) as pool:
            asyncio.run(main(pool))
        """,
    )
    assert run(path) == "True\n"


# ---- The end of a pool --------------------------------------------------------------------------


def test_a_dead_supervisor_breaks_the_pool_for_who_awaits(
    started: Gate, held: Gate, workers: Any
) -> None:
    async def main() -> None:
        waiting = [workers.aio.submit(pass_gates, started, held) for _ in range(4)]
        await started_by_loop(started)
        begin = time.monotonic()
        os.kill(workers.supervisor_pid, signal.SIGKILL)
        for one in waiting:
            with pytest.raises(libpool.BrokenPool):
                await asyncio.wait_for(one, 5)
        assert time.monotonic() - begin < 1
        with pytest.raises(libpool.BrokenPool):
            await workers.aio.submit(square, 2)

    asyncio.run(main())


def test_terminate_cancels_for_who_awaits(started: Gate, held: Gate, workers: Any) -> None:
    async def main() -> None:
        waiting = [workers.aio.submit(pass_gates, started, held) for _ in range(4)]
        await started_by_loop(started)
        workers.terminate()
        ended = await asyncio.wait_for(asyncio.wait(waiting), 5)
        assert all(one.cancelled() for one in ended[0]) and not ended[1]

    asyncio.run(main())


def test_cancel_waiting_reaches_the_loop(started: Gate, held: Gate) -> None:
    async def main(executor: libpool.Executor) -> None:
        first = executor.aio.submit(pass_gates, started, held, 1)
        await started_by_loop(started)
        waiting = [executor.aio.submit(square, n) for n in range(5)]
        executor.shutdown(wait=False, cancel_futures=True)
        ended, _ = await asyncio.wait_for(asyncio.wait(waiting), 5)
        assert all(one.cancelled() for one in ended)
        held.open()
        assert await first == 1

    with libpool.Executor(1) as executor:
        asyncio.run(main(executor))


def test_a_closed_pool_takes_no_calls_and_finishes_those_that_it_has(workers: Any) -> None:
    async def main() -> None:
        futures = [workers.aio.submit(keep_later, [n], 0.02) for n in range(4)]
        workers.close()
        with pytest.raises((ValueError, RuntimeError), match="not running|after shutdown"):
            workers.aio.submit(square, 2)
        assert await asyncio.gather(*futures) == [[n] for n in range(4)]

    asyncio.run(main())


def test_join_does_not_block_the_loop(started: Gate, held: Gate, workers: Any) -> None:
    async def main() -> None:
        calls = workers.aio
        with pytest.raises(ValueError, match="still running"):
            await calls.join()
        future = calls.submit(pass_gates, started, held, 5)
        await started_by_loop(started)
        workers.close()
        joining = asyncio.create_task(calls.join())
        also = asyncio.create_task(calls.join())
        await asyncio.sleep(0.05)
        assert not joining.done() and not future.done()
        held.open()
        await asyncio.wait_for(asyncio.gather(joining, also), 20)
        assert await future == 5
        await calls.join()
        assert workers.worker_pids() == []

    asyncio.run(main())


def test_the_context_manager_waits_for_jobs(workers: Any) -> None:
    async def main() -> None:
        async with workers.aio as calls:
            future = calls.submit(keep_later, [1], 0.1)
        assert future.result() == [1]
        assert workers.worker_pids() == []

    asyncio.run(main())


def test_the_context_manager_terminates_after_an_exception(
    started: Gate, held: Gate, workers: Any
) -> None:
    async def main() -> None:
        with pytest.raises(ZeroDivisionError):
            async with workers.aio as calls:
                future = calls.submit(pass_gates, started, held)
                await started_by_loop(started)
                raise ZeroDivisionError
        await asyncio.wait({future})
        assert future.cancelled() and workers.worker_pids() == []

    asyncio.run(main())


# ---- In a job -----------------------------------------------------------------------------------


def gather_in_job(count: int) -> list[int]:
    async def main() -> list[int]:
        pool = libpool.current()
        assert pool is not None
        return await asyncio.gather(*(pool.aio.submit(square, n) for n in range(count)))

    return asyncio.run(main())


def test_a_job_awaits_jobs_of_its_own_pool(workers: Any) -> None:
    async def main() -> None:
        nested = [workers.aio.submit(gather_in_job, 20) for _ in range(5)]
        assert await asyncio.gather(*nested) == [[n * n for n in range(20)]] * 5

    asyncio.run(main())


def test_a_job_uses_a_pool_of_its_own(workers: Any) -> None:
    def inner() -> list[int]:
        async def main() -> list[int]:
            async with libpool.Pool(1).aio as calls:
                return [r async for r in calls.map(square, range(10))]

        return asyncio.run(main())

    async def main() -> None:
        assert await workers.aio.submit(inner) == [n * n for n in range(10)]

    asyncio.run(main())


# ---- Other loops, programs ----------------------------------------------------------------------


@pytest.mark.skipif(not HAS_UVLOOP, reason="uvloop is not installed")
def test_uvloop(tmp_path: Path) -> None:
    # In a process of its own: uvloop leaves descriptors open.
    path = program(
        tmp_path / "with_uvloop.py",
        """
        import asyncio, contextlib, os, signal, time
        import libpool, uvloop

        def square(x):
            return x * x

        async def numbers(count):
            for n in range(count):
                await asyncio.sleep(0)
                yield n

        async def main(pool, other):
            calls = pool.aio
            before = os.listdir("/proc/self/task")
            found = await asyncio.gather(*(calls.submit(square, n) for n in range(500)))
            assert found == [n * n for n in range(500)]
            found = [r async for r in calls.map(square, numbers(50))]
            assert found == [n * n for n in range(50)]
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.05):
                    await calls.options(kill_on_cancel=True).submit(time.sleep, 60)
            assert await calls.submit(square, 3) == 9
            calls.submit(time.sleep, 0.2)
            assert os.listdir("/proc/self/task") == before
            future = other.aio.submit(time.sleep, 60)
            os.kill(other.supervisor_pid, signal.SIGKILL)
            try:
                await asyncio.wait_for(future, 5)
            except libpool.BrokenPool:
                print("broken")
            async with libpool.Pool(1).aio as calls:
                print(await calls.submit(square, 4))

        with libpool.Executor(2) as pool:
            for _ in range(3):
                with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                    runner.run(main(pool, libpool.Pool(1)))
        """,
    )
    assert run(path) == "broken\n16\n" * 3


def test_ctrl_c_ends_a_program_that_awaits(tmp_path: Path) -> None:
    path = program(
        tmp_path / "ctrl_c.py",
        """
        import asyncio, os, signal, time
        import libpool

        async def main(pool):
            loop = asyncio.get_running_loop()
            loop.call_later(0.1, os.kill, os.getpid(), signal.SIGINT)
            await asyncio.gather(*(pool.aio.submit(time.sleep, 60) for _ in range(10)))

        with libpool.Pool(2) as pool:
            begin = time.monotonic()
            try:
                asyncio.run(main(pool))
            except KeyboardInterrupt:
                print(time.monotonic() - begin < 2)
        """,
    )
    assert run(path) == "True\n"


EXAMPLES = Path(__file__).parents[2] / "examples" / "python"


def test_the_example_of_a_server_serves() -> None:
    output = run(EXAMPLES / "asyncio_server.py", "--demo", "--port", "0", "--timeout", "1")
    assert "5316911983139663487003542222693990401 takes too long" in output
    assert "12 = 2 * 2 * 3" in output and "got 500 right answers" in output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_example_of_a_server_stops_amid_its_work(number: signal.Signals) -> None:
    process = start(EXAMPLES / "asyncio_server.py", "--port", "0")
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline().split()[-1])
        with socket.create_connection(("localhost", port)) as idle:
            with socket.create_connection(("localhost", port)) as busy:
                busy.sendall(b"7\n5316911983139663487003542222693990401\n")
                assert busy.recv(100) == b"7 = 7\n"
                process.send_signal(number)
                assert process.communicate(timeout=20) == ("", "")
                assert busy.recv(100) == idle.recv(100) == b""
        assert process.returncode == 0
    finally:
        process.kill()
        process.wait()


def test_the_example_for_trio_and_anyio() -> None:
    output = run(EXAMPLES / "trio_anyio.py")
    squares = str([n * n for n in range(20)])
    for part, names in [("Trio", ["trio"]), ("AnyIO on trio", ["anyio", "trio"])]:
        if all(map(importlib.util.find_spec, names)):
            assert f"{part}: {squares}\n{part}: given up after a tenth of a second: True" in output
    for name, wanted in [("trio", "Trio"), ("anyio", "AnyIO")]:
        assert (f"{wanted} is not installed" in output) is (importlib.util.find_spec(name) is None)


def test_results_that_a_closed_loop_left_take_no_memory() -> None:
    async def leave(pool: libpool.Pool, settled: bool) -> None:
        pool.aio.submit(bytes, MIB)
        assert await pool.aio.submit(square, 2) == 4
        pool.aio.submit(bytes, MIB)
        if settled:  # ... and the result is there, and the loop has not looked
            until(lambda: pool.stats()["jobs_started"] % 3 == 0)
            time.sleep(0.002)

    gc.disable()
    try:
        with libpool.Pool(1, shared_limit=8 * MIB) as pool:
            for turn in range(30):
                asyncio.run(leave(pool, turn % 2 == 0))
            assert len(pool.submit(bytes, 4 * MIB).result()) == 4 * MIB
    finally:
        gc.enable()


def test_importing_libpool_does_not_import_asyncio(tmp_path: Path) -> None:
    path = program(
        tmp_path / "imports.py", "import sys, libpool\nprint('asyncio' in sys.modules)\n"
    )
    assert run(path) == "False\n"
