"""A TCP server that factors numbers: asyncio talks to the clients, worker processes calculate.

One line in, one line out: ``12`` gives ``12 = 2 * 2 * 3``. A number that takes longer than
``--timeout`` seconds is refused; when the server is stopped, what is being calculated is given up.
No thread is started.

Run it and talk to it with ``nc localhost 8765``, or let ``--demo`` do both.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import random
import signal
import sys
import time
from collections.abc import Sequence

import libpool
from libpool.aio import Asyncio

MAX_DIGITS = 40


def factors(n: int) -> list[int]:
    """Divide `n` into primes, by trial division."""
    found = []
    divisor = 2
    while divisor * divisor <= n:
        while n % divisor == 0:
            found.append(divisor)
            n //= divisor
        divisor += 1 if divisor == 2 else 2
    if n > 1 or not found:
        found.append(n)
    return found


async def answer(calls: Asyncio, line: str) -> str:
    """What the server says to a line."""
    if not (line.isdecimal() and len(line) <= MAX_DIGITS):
        return f"error: not a number of at most {MAX_DIGITS} digits"
    try:
        found = await calls.submit(factors, int(line))
    except TimeoutError:
        return f"error: {line} takes too long"
    except libpool.WorkerDied as error:
        return f"error: {error}"
    return f"{line} = {' * '.join(map(str, found))}"


async def serve_client(
    calls: Asyncio, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Answer the lines of one client, until it closes the connection or the server is stopped."""
    with contextlib.suppress(ConnectionError, asyncio.CancelledError):
        while line := await reader.readline():
            text = await answer(calls, line.decode("ascii", "replace").strip())
            writer.write(f"{text}\n".encode())
            await writer.drain()
    writer.close()


async def talk(port: int, numbers: Sequence[int]) -> list[str]:
    """Be a client: send the numbers, and return what the server says."""
    reader, writer = await asyncio.open_connection("localhost", port)
    writer.write("".join(f"{n}\n" for n in numbers).encode())
    answers = [(await reader.readline()).decode().strip() for _ in numbers]
    writer.close()
    await writer.wait_closed()
    return answers


async def demonstrate(port: int, clients: int, each: int) -> None:
    """Be many clients at once, and tell how it went."""
    draw = random.Random(1)
    numbers = [[draw.randrange(10**6, 10**9) for _ in range(each)] for _ in range(clients)]
    hard = (2**61 - 1) ** 2
    begin = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(talk(port, some)) for some in numbers]
        refused = group.create_task(talk(port, [hard, 12]))
    seconds = time.perf_counter() - begin
    for some, task in zip(numbers, tasks):
        for n, text in zip(some, task.result()):
            if text != f"{n} = {' * '.join(map(str, factors(n)))}":
                raise AssertionError(f"the server said {text!r}")
    for text in refused.result():
        print(text)
    print(f"{clients} clients got {clients * each} right answers in {seconds:.2f} s")


async def run(arguments: argparse.Namespace) -> None:
    """Serve until SIGINT or SIGTERM; with ``--demo``, until that is over."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    with libpool.Pool(arguments.workers, timeout=arguments.timeout) as pool:
        serve = functools.partial(serve_client, pool.aio)
        server = await asyncio.start_server(serve, "localhost", arguments.port)
        port = server.sockets[0].getsockname()[1]
        print(f"listening on port {port}", flush=True)
        if arguments.demo:
            await demonstrate(port, arguments.clients, arguments.each)
        else:
            await stop.wait()
        server.close()  # asyncio.run() cancels those who serve clients


def main() -> int:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, default=8765, help="0: any that is free")
    parser.add_argument("--workers", type=int, help="default: one for each core")
    parser.add_argument("--timeout", type=float, default=5, help="seconds for one number")
    parser.add_argument("--demo", action="store_true", help="be the clients too, and end")
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--each", type=int, default=25, help="numbers from each client")
    asyncio.run(run(parser.parse_args()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
