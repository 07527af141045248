"""Progress bars, by tqdm."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, TypeAlias

__all__ = ["Bar", "Progress", "make_bar"]

Progress: TypeAlias = bool | Mapping[str, Any]
"""False; True; or keywords for tqdm."""


class Bar(Protocol):
    """What is used of a `tqdm.tqdm`."""

    def update(self, n: int) -> object: ...  # noqa: D102
    def close(self) -> None: ...  # noqa: D102


def make_bar(progress: Progress, total: int | None) -> Bar | None:
    """Make the bar that the user asked for.

    Parameters
    ----------
    progress : bool or mapping
        False: none. True: one that is shown if stderr is a terminal, or in a notebook. A mapping:
        keywords for tqdm, which win over what is given here.
    total : int or None
        How many items there are, if that is known.

    Raises
    ------
    TypeError
        It is neither.
    ImportError
        tqdm is not installed.
    """
    if progress is False:
        return None
    if progress is not True and not isinstance(progress, Mapping):
        raise TypeError(
            f"progress must be True, False or a dict of keywords for tqdm, not {progress!r}"
        )
    try:
        from tqdm.auto import tqdm
    except ImportError as error:
        raise ImportError(
            "progress needs tqdm, which is not installed: pip install 'libpool[progress]'"
        ) from error
    options: dict[str, Any] = {"total": total}
    if progress is True:
        # In a notebook, where stderr is no terminal, the bar is no text.
        in_notebook = any(kind.__module__ == "tqdm.notebook" for kind in tqdm.__mro__)
        options["disable"] = False if in_notebook else None
    else:
        options.update(progress)
    bar: Bar = tqdm(**options)
    return bar
