"""The examples in README.md run as they stand there and print what they say."""

import os
import re
import shutil
import sys
from pathlib import Path

import pytest
from support_examples import ROOT, blocks, promised, prose, run

README = ROOT / "README.md"


def built_library() -> Path:
    """Find the folder of libpool.so below ``$LIBPOOL_BUILD`` or build/release; else skip."""
    build = Path(os.environ.get("LIBPOOL_BUILD", ROOT / "build" / "release"))
    library = next(build.rglob("libpool.so"), None)
    if library is None:
        pytest.skip("the C library has not been built (set LIBPOOL_BUILD to its build folder)")
    return library.parent


@pytest.mark.parametrize("code", blocks(README, "python"))
def test_python_example_prints_what_it_promises(code: str, tmp_path: Path) -> None:
    script = tmp_path / "example.py"
    script.write_text(code)
    finished = run(sys.executable, script, folder=tmp_path)
    assert finished.returncode == 0, finished.stderr
    assert finished.stderr == ""
    assert promised(code)
    assert finished.stdout.splitlines() == promised(code)


@pytest.mark.parametrize("code", blocks(README, "python"))
def test_python_example_can_be_piped_into_the_interpreter(code: str, tmp_path: Path) -> None:
    finished = run(sys.executable, "-", folder=tmp_path, text=code)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.splitlines() == promised(code)


@pytest.mark.parametrize("code", blocks(README, "c"))
def test_c_example_compiles_and_prints_what_it_promises(code: str, tmp_path: Path) -> None:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler")
    library = built_library()
    source, program = tmp_path / "example.c", tmp_path / "example"
    source.write_text(code)
    compiled = run(
        *(compiler, "-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Werror"),
        *(source, "-o", program, "-I", ROOT / "libpool" / "include"),
        *("-L", library, f"-Wl,-rpath,{library}", "-lpool"),
        folder=tmp_path,
    )
    assert compiled.returncode == 0, compiled.stderr
    finished = run(program, folder=tmp_path)
    assert finished.returncode == 0, finished.stderr
    assert promised(code)
    assert finished.stdout.splitlines() == promised(code)


def sums(output: str) -> list[str]:
    """Return the lines of sum_primes that do not depend on the time taken."""
    return [line for line in output.splitlines() if line.startswith("The sum")]


def test_sum_primes_prints_the_right_sums_in_order(tmp_path: Path) -> None:
    numbers = [2000, 10, 3, 2, 0, 2000]
    script = ROOT / "examples" / "python" / "sum_primes.py"
    finished = run(sys.executable, script, "--workers", 2, *numbers, folder=tmp_path)
    assert finished.returncode == 0, finished.stderr
    primes = {2000: 277050, 10: 17, 3: 2, 2: 0, 0: 0}
    assert sums(finished.stdout) == [
        f"The sum of all primes below {n} is {primes[n]}" for n in numbers
    ]
    assert re.search(r"^6 jobs took [0-9.]+ s with 2 workers$", finished.stdout, re.MULTILINE)

    program = next(built_library().parent.rglob("sum_primes"), None)
    if program is None:
        pytest.skip("the C examples have not been built")
    in_c = run(program, "-w", 2, *numbers, folder=tmp_path)
    assert in_c.returncode == 0, in_c.stderr
    assert sums(in_c.stdout) == sums(finished.stdout)


def test_index_of_the_standard_library_is_the_same_with_the_pool(tmp_path: Path) -> None:
    script = ROOT / "examples" / "python" / "index_stdlib.py"
    finished = run(sys.executable, script, "--workers", 2, "--limit", 30, folder=tmp_path)
    assert finished.returncode == 0, finished.stderr
    assert finished.stderr == ""  # no progress bar, since stderr is not a terminal
    assert re.search(r"^same answer +yes$", finished.stdout, re.MULTILINE)


def test_readme_has_an_example_for_each_language() -> None:
    assert blocks(README, "python")
    assert blocks(README, "c")
    assert blocks(README, "cpp")


def test_links_in_readme_lead_to_files() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", prose(README))
    missing = [link for link in links if "://" not in link and not (ROOT / link).exists()]
    assert not missing
