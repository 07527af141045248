"""Scores text; python_score.c calls this in worker processes.

In pure Python, as such code often begins, and nothing but computation.
"""

from __future__ import annotations

import re

WORD = re.compile(r"[a-z']+")
VOWELS = "aeiouy"


def syllables(word: str) -> int:
    """Count groups of vowels; a silent e at the end is none."""
    count = 0
    before = False
    for letter in word:
        vowel = letter in VOWELS
        count += vowel and not before
        before = vowel
    if word.endswith("e") and count > 1:
        count -= 1
    return max(count, 1)


def score(text: str) -> dict[str, float | int]:
    """Give the reading ease of a text, after Flesch (1948): the higher, the easier to read."""
    sentences = max(sum(text.count(mark) for mark in ".!?"), 1)
    words = WORD.findall(text.lower())
    total = sum(syllables(word) for word in words)
    ease = 206.835 - 1.015 * len(words) / sentences - 84.6 * total / max(len(words), 1)
    return {"words": len(words), "sentences": sentences, "ease": ease}
