"""The prefilter: literals come from the pattern itself, and it never hides a match."""

from __future__ import annotations

import re

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from nodehealth.prefilter import PatternError, Prefilter, required_literals

PATIENT = settings(deadline=None, suppress_health_check=list(HealthCheck))  # this machine may be busy


@pytest.mark.parametrize(
    ("regex", "literals"),
    [
        ("abcd", {"abcd"}),
        ("^abcd$", {"abcd"}),
        (r"NVRM: Xid \(\d+\): \d+", {"NVRM: Xid ("}),
        (r"(?:first|second) error", {" error"}),
        (r"(?:first|second)\d", {"first", "second"}),
        (r"x(?P<object>[a-z]+): timed out", {": timed out"}),
        (r"(?:optional )?fixed", {"fixed"}),
        (r"(?:again )+\d", {"again "}),
        (r"(?>atomic)\d", {"atomic"}),
        (r"abc\.def", {"abc.def"}),
        (r"(?i:word) fixed", {" fixed"}),
        (r"(?=looked)ahead", {"ahead"}),
    ],
)
def test_literals_of_a_pattern(regex: str, literals: set[str]) -> None:
    assert required_literals(regex) == literals


@pytest.mark.parametrize(
    ("regex", "why"),
    [
        (r"\d+", "fixed text"),
        ("abc", "fixed text"),
        ("abc|defgh", "fixed text"),
        ("(?:abcdef)?", "fixed text"),
        ("(?:abcdef)*", "fixed text"),
        ("(?:abcdef|)x", "fixed text"),
        ("", "fixed text"),
        ("(?i)abcdef", r"\(\?i\)"),
        ("(abcd", "not a regular expression"),
        ("[abcd", "not a regular expression"),
        ("abcd**", "not a regular expression"),
    ],
)
def test_pattern_without_a_literal_is_refused(regex: str, why: str) -> None:
    with pytest.raises(PatternError, match=why):
        Prefilter([regex])


def test_candidates_are_in_order_and_each_once() -> None:
    prefilter = Prefilter(["second thing", "(?:first|thing)", "other", "thing"])
    assert prefilter.candidates("the second thing, first") == [0, 1, 3]
    assert prefilter.candidates("nothing of it") == [1, 3]
    assert prefilter.candidates("quiet") == []
    assert prefilter.candidates("") == []


def test_no_pattern_has_no_candidate() -> None:
    assert Prefilter([]).candidates("anything at all") == []


WORDS = st.text("abc .", min_size=4, max_size=6).map(re.escape)
PATTERNS = st.recursive(
    WORDS,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map("".join),
        st.lists(inner, min_size=2, max_size=3).map(lambda parts: f"(?:{'|'.join(parts)})"),
        inner.map("(?:{})?abcd".format),
        inner.map("(?:{}){{1,2}}".format),
        inner.map(r"\d?{}[abc]?".format),
        inner.map("^{}".format),
    ),
    max_leaves=6,
)


def _usable(regex: str) -> bool:
    """Alternatives with a common beginning are parsed as that beginning, which may be too short."""
    try:
        return bool(required_literals(regex))
    except PatternError:
        return False


@given(st.lists(PATTERNS, min_size=1, max_size=5), st.data())
@PATIENT
def test_a_match_is_never_hidden(patterns: list[str], data: st.DataObject) -> None:
    line = data.draw(st.one_of(st.from_regex(data.draw(st.sampled_from(patterns))), st.text("abcd. 1", max_size=30)))
    assume(all(_usable(regex) for regex in patterns))
    matching = {index for index, regex in enumerate(patterns) if re.search(regex, line)}
    assert matching <= set(Prefilter(patterns).candidates(line))
