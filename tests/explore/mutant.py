"""What a seeded mistake is, for seeded_layers.py and seeded_pool.py."""

from __future__ import annotations

from dataclasses import dataclass

RING, FREEMAP, ARENA, HOLDERS, JOB, WAKE, POOL, MANY = (
    f"test_explore_{layer}"
    for layer in ("ring", "freemap", "arena", "holders", "job", "wake", "pool", "many")
)


@dataclass(frozen=True)
class Mutant:
    """`changes` are pairs of a text that is in `file` exactly once, and what takes its place."""

    name: str
    file: str
    changes: tuple[tuple[str, str], ...]
    test: str
    scenario: str
