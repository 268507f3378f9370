"""Says what in a regular expression could make it slow: repeats inside repeats, and unbounded repeats that overlap.

A pattern that passes is linear for a fixed number of gaps: no repeat holds another one, unbounded repeats are only over
character classes whose follower they cannot eat, and every other gap has an upper bound.
"""

from __future__ import annotations

import re
from re import _constants as sre  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

MAX_GAP = 256
REPEATS = (sre.MAX_REPEAT, sre.MIN_REPEAT, sre.POSSESSIVE_REPEAT)


def complaint(regex: str) -> str | None:
    """What is wrong, or None."""
    return _sequence(list(parser.parse(regex)), inside_repeat=False)


def _sequence(items: list[Any], *, inside_repeat: bool) -> str | None:
    for index, (operator, argument) in enumerate(items):
        found = None
        if operator in REPEATS:
            found = _repeat(argument, items[index + 1 :], inside_repeat=inside_repeat)
        elif operator is sre.SUBPATTERN:
            found = _sequence(list(argument[3]), inside_repeat=inside_repeat)
        elif operator is sre.BRANCH:
            found = next(filter(None, (_sequence(list(b), inside_repeat=inside_repeat) for b in argument[1])), None)
        elif operator in {sre.GROUPREF, sre.GROUPREF_EXISTS}:
            found = "a back reference"
        if found:
            return found
    return None


def _repeat(argument: Any, rest: list[Any], *, inside_repeat: bool) -> str | None:
    _least, most, body = argument
    if most == 1:
        return _sequence(list(body), inside_repeat=inside_repeat)
    if inside_repeat:
        return "a repeat inside a repeat"
    width = body.getwidth()[1]
    if most is sre.MAXREPEAT:
        if len(body) != 1 or width != 1:
            return "an unbounded repeat of more than one character"
        if rest and _overlaps(body[0], rest):
            return "an unbounded repeat that can eat what follows it"
    elif most * width > MAX_GAP and rest:
        return f"a gap of more than {MAX_GAP} characters"
    return _sequence(list(body), inside_repeat=True)


def _overlaps(atom: Any, rest: list[Any]) -> bool:
    """Whether the first thing after a repeat may begin with a character that the repeat takes too."""
    eaten = _characters(atom)
    for operator, argument in rest:
        if operator is sre.AT:
            continue
        if operator in REPEATS:
            if _first(list(argument[2])) & eaten:
                return True
            if argument[0] > 0:
                return False
            continue
        return bool(_first([(operator, argument)]) & eaten)
    return False


def _first(items: list[Any]) -> frozenset[int]:
    for operator, argument in items:
        if operator is sre.AT:
            continue
        if operator is sre.SUBPATTERN:
            return _first(list(argument[3]))
        if operator is sre.BRANCH:
            return frozenset().union(*(_first(list(branch)) for branch in argument[1]))
        if operator in REPEATS:
            return _first(list(argument[2]))
        return _characters((operator, argument))
    return frozenset()


def _characters(atom: Any) -> frozenset[int]:
    """The ASCII characters that one item matches."""
    operator, argument = atom
    everything = frozenset(range(128))
    if operator is sre.LITERAL:
        return frozenset({argument})
    if operator is sre.NOT_LITERAL:
        return everything - {argument}
    if operator is sre.ANY:
        return everything - {10}
    if operator is sre.IN:
        return _class(argument)
    return everything


def _class(items: list[Any]) -> frozenset[int]:
    found: set[int] = set()
    negated = False
    for operator, argument in items:
        if operator is sre.NEGATE:
            negated = True
        elif operator is sre.LITERAL:
            found.add(argument)
        elif operator is sre.RANGE:
            found |= set(range(argument[0], min(argument[1], 127) + 1))
        elif operator is sre.CATEGORY:
            letter = {
                sre.CATEGORY_DIGIT: r"\d",
                sre.CATEGORY_WORD: r"\w",
                sre.CATEGORY_SPACE: r"\s",
                sre.CATEGORY_NOT_DIGIT: r"\D",
                sre.CATEGORY_NOT_WORD: r"\W",
                sre.CATEGORY_NOT_SPACE: r"\S",
            }[argument]
            found |= {code for code in range(128) if re.match(letter, chr(code))}
    return frozenset(range(128)) - found if negated else frozenset(found)
