"""Literals that a line must contain before a pattern can match it, derived from the parsed pattern.

Looking for some dozen fragments with `in` is many times cheaper than trying every pattern, and almost every line of a
healthy node passes none of the literals.  Nobody types a literal: a pattern and its literals cannot disagree.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterable, Sequence
from re import _constants as sre  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

MIN_LITERAL = 4


class PatternError(ValueError):
    """The pattern cannot be used; the message says what to change."""


def required_literals(regex: str) -> frozenset[str]:
    """A set of literals of which every match contains at least one.

    Raises PatternError where the pattern is no regular expression, ignores case, or guarantees no literal of
    MIN_LITERAL characters.
    """
    try:
        parsed = parser.parse(regex)
    except (re.error, OverflowError, RecursionError) as error:
        raise PatternError(f"not a regular expression: {error}") from error
    if parsed.state.flags & re.IGNORECASE:
        raise PatternError("(?i) cannot be used: write the few letters that vary as [Aa]")
    literals = _best(parsed)
    if not literals or min(map(len, literals)) < MIN_LITERAL:
        raise PatternError(f"needs a fixed text of at least {MIN_LITERAL} characters, so that other lines cost nothing")
    return literals


def _weight(literals: frozenset[str]) -> float:
    """How selective a set is: its shortest literal, a little less for every alternative."""
    return min(map(len, literals)) - 0.01 * len(literals)


def _best(items: Iterable[Any]) -> frozenset[str]:
    """The most selective requirement of a sequence; empty where it guarantees nothing."""
    candidates = [found for found in _requirements(items) if found]
    usable = [found for found in candidates if min(map(len, found)) >= MIN_LITERAL]
    return max(usable or candidates, key=_weight, default=frozenset())


def _requirements(items: Iterable[Any]) -> Iterable[frozenset[str]]:
    run: list[str] = []
    for operator, argument in items:
        if operator is sre.LITERAL:
            run.append(chr(argument))
            continue
        if operator is sre.AT:  # an anchor has no width: the run goes on
            continue
        if run:
            yield frozenset({"".join(run)})
            run = []
        yield _inner(operator, argument)
    if run:
        yield frozenset({"".join(run)})


def _inner(operator: Any, argument: Any) -> frozenset[str]:
    if operator is sre.SUBPATTERN:
        _, added, _, body = argument
        return frozenset() if added & re.IGNORECASE else _best(body)
    if operator in {sre.MAX_REPEAT, sre.MIN_REPEAT, sre.POSSESSIVE_REPEAT}:
        least, _, body = argument
        return _best(body) if least else frozenset()
    if operator is sre.ATOMIC_GROUP:
        return _best(argument)
    if operator is sre.BRANCH:
        branches = [_best(branch) for branch in argument[1]]
        return frozenset().union(*branches) if all(branches) else frozenset()
    return frozenset()


class Prefilter:
    """Answers for a line which of the patterns may match it.

    Two looks: first for some dozen fragments of GRAM characters of which every literal contains one, then, where a
    fragment is there, for the literals that it stands for.
    """

    def __init__(self, regexes: Sequence[str]) -> None:
        """Raises PatternError as `required_literals` does."""
        literals = [required_literals(regex) for regex in regexes]
        patterns: dict[str, list[int]] = {}
        for index, alternatives in enumerate(literals):
            for literal in alternatives:
                patterns.setdefault(literal, []).append(index)
        self._grams = tuple(
            (gram, tuple((literal, tuple(patterns[literal])) for literal in owners))
            for gram, owners in _cover(patterns).items()
        )

    def candidates(self, text: str) -> list[int]:
        """Indices of the patterns that may match, in their order, each once."""
        found: set[int] = set()
        for gram, literals in self._grams:
            if gram in text:
                for literal, patterns in literals:
                    if literal in text:
                        found.update(patterns)
        return sorted(found) if found else []


def _cover(literals: Iterable[str]) -> dict[str, list[str]]:
    """A small set of fragments such that every literal contains one, with the literals that each stands for.

    Greedy: the fragment that is in most literals first.  Numbers only shrink, so a heap of old numbers is enough.
    """
    owners: dict[str, set[str]] = {}
    for literal in literals:
        for start in range(len(literal) - MIN_LITERAL + 1):
            owners.setdefault(literal[start : start + MIN_LITERAL], set()).add(literal)
    left = {literal for group in owners.values() for literal in group}
    heap = [(-len(group), gram) for gram, group in owners.items()]
    heapq.heapify(heap)
    chosen: dict[str, list[str]] = {}
    while left:
        count, gram = heapq.heappop(heap)
        owned = owners[gram] & left
        if len(owned) == -count:
            chosen[gram] = sorted(owned)
            left -= owned
        elif owned:
            heapq.heappush(heap, (-len(owned), gram))
    return chosen
