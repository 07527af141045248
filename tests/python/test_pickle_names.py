"""Which functions and classes a pickle names, as the unpickler would find them."""

from __future__ import annotations

import datetime
import enum
import fractions
import io
import os.path
import pickle
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import program, run

from libpool import Pool, _core


class Point:
    class Inner:
        pass

    def __init__(self, x: object) -> None:
        self.x = x

    def __eq__(self, other: object) -> bool:
        return type(other) is Point and other.x == self.x

    def __hash__(self) -> int:
        return 1


class Colour(enum.Enum):
    RED = 1


class Finder(pickle.Unpickler):
    def __init__(self, pickled: bytes) -> None:
        super().__init__(io.BytesIO(pickled))
        self.found: set[tuple[str, str]] = set()

    def find_class(self, module: str, name: str) -> Any:
        self.found.add((module, name))
        return super().find_class(module, name)


def found_in(pickled: bytes) -> set[tuple[str, str]]:
    finder = Finder(pickled)
    finder.load()
    return finder.found


NAMES = ["__main__", __name__, "Point", "Point.Inner", "os.path", "\udc80", "ä" * 300]
leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=5)
    | st.sampled_from(NAMES)
    | st.binary(max_size=300)
    | st.binary(max_size=5).map(bytearray)
    | st.sampled_from([Point, Point.Inner, Colour.RED, os.path.join, len, OrderedDict, int])
    | st.fractions()
    | st.dates()
)
values = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.lists(inner, max_size=5).map(tuple)
        | st.dictionaries(st.text(max_size=3), inner, max_size=4)
        | st.builds(Point, inner)
        | st.builds(lambda a: [a, a], inner)
    ),
    max_leaves=20,
)


@given(values)
def test_what_a_pickle_names_is_what_the_unpickler_looks_up(value: Any) -> None:
    pickled = pickle.dumps(value, 5)
    assert _core.globals_in(pickled) == found_in(pickled)


def test_names_are_found_in_the_memo_and_in_long_pickles() -> None:
    points = [Point(i) for i in range(70_000)]
    mixed = ["Point", Point, "Colour", __name__, Colour.RED, points, bytes(1 << 17), "x" * 70_000]
    pickled = pickle.dumps(mixed, 5)
    assert _core.globals_in(pickled) == {(__name__, "Point"), (__name__, "Colour")}


def test_what_is_put_together_in_another_way_is_not_judged() -> None:
    for pickled in (
        pickle.dumps(Point(1), 2),  # GLOBAL, with lines of text
        pickle.dumps(Point(1), 3),
        b"\x80\x05N\x8c\x05Point\x93.",  # a module that is no string
        b"\x80\x05h\x05.",  # from a memo that is empty
    ):
        assert _core.globals_in(pickled) is None
    with pytest.raises(TypeError, match="a pickle is bytes, not str"):
        _core.globals_in("text")  # type: ignore[arg-type]


def prefixes(pickled: bytes) -> Iterator[bytes]:
    return (pickled[:end] for end in range(len(pickled)))


def test_a_damaged_pickle_is_harmless() -> None:
    value = [Point(datetime.date(2000, 1, 1)), fractions.Fraction(1, 3), b"x" * 300, "y" * 300]
    pickled = pickle.dumps([*value, {1.5: Point}], 5)
    for part in prefixes(pickled):
        names = _core.globals_in(part)
        assert names is None or names <= found_in(pickled)
    for at in range(len(pickled)):
        for byte in (0, 0x8C, 0x8D, 0x93, 0x94, 0xFF):
            damaged = pickled[:at] + bytes([byte]) + pickled[at + 1 :]
            names = _core.globals_in(damaged)
            assert names is None or isinstance(names, set)


def test_instances_of_mains_classes_are_what_the_classes_are_now(tmp_path: Path) -> None:
    path = program(
        tmp_path / "main.py",
        """
        import libpool

        class Point:
            def __init__(self, x):
                self.x = x

            def shown(self):
                return f"Point({self.x})"

        class Other(Point):
            pass

        def shown(point):
            return point.shown(), type(point) is Point

        if __name__ == "__main__":
            with libpool.Pool(1) as pool:
                print(pool.apply(shown, (Point(1),)), pool.apply(shown, (Point(2),)))
                print(pool.apply(shown, (Other(1),)))
                Point.shown = lambda self: f"changed {self.x}"
                print(pool.apply(shown, (Point(3),))[0], pool.apply(shown, (Other(4),))[0])

                class Point:
                    def shown(self):
                        return "new"

                print(pool.apply(shown, (Point(),))[0])
                Alias = Other
                Other = None
                print(pool.apply(shown, (Alias(5),))[0])
        """,
    )
    assert run(path).splitlines() == [
        "('Point(1)', True) ('Point(2)', True)",
        "('Point(1)', False)",
        "changed 3 changed 4",
        "new",
        "changed 5",
    ]


def test_a_changed_function_of_a_module_goes_along_beside_an_instance(tmp_path: Path) -> None:
    (tmp_path / "helper.py").write_text("def value():\n    return 'before'\n")
    path = program(
        tmp_path / "main.py",
        """
        import libpool
        import helper

        class Point:
            pass

        def call(point, function):
            return function()

        if __name__ == "__main__":
            with libpool.Pool(1) as pool:
                print(pool.apply(call, (Point(), helper.value)))
                exec("def value(): return 'after'", vars(helper))
                print(pool.apply(call, (Point(), helper.value)))
        """,
    )
    assert run(path).splitlines() == ["before", "after"]


def test_a_job_sends_instances_of_mains_classes_to_its_own_pool(tmp_path: Path) -> None:
    path = program(
        tmp_path / "main.py",
        """
        import libpool

        class Point:
            def __init__(self, x):
                self.x = x

        def x_of(point):
            return point.x, type(point) is Point

        def outer(point):
            return libpool.current().apply(x_of, (Point(point.x + 1),))

        if __name__ == "__main__":
            with libpool.Pool(2) as pool:
                print(pool.apply(outer, (Point(1),)))
        """,
    )
    assert run(path).splitlines() == ["(2, True)"]


def test_many_instances_arrive_in_order() -> None:
    with Pool(2) as pool:
        assert pool.map(x_of, [Point(i) for i in range(1000)]) == list(range(1000))


def x_of(point: Point) -> object:
    return point.x
