"""The catalog: every reason and every rule, found by looking into `subsystems/`.

A topic is a module there.  It may define `REASONS` (tuple of Reason), `CONTEXT` (tuple of Pattern: lines that are
recognised and mean nothing) and `build(overrides)` (for the number families, whose classes the configuration can change).
Nothing registers itself: adding a file is enough.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import ModuleType

from nodehealth import pci, subsystems
from nodehealth.model import ClearKind, Event, Finding, Pattern, Reason, Record, Recovery, Rule
from nodehealth.prefilter import Prefilter
from nodehealth.wrapper import unwrap

DRIVER_PREFIXES = ("NVRM: ", "nvidia-nvswitch", "nvidia-peermem", "nvidia-modeset: ERROR")
"""A line that begins so and that no rule recognises is counted: the early sign that a driver changed its wording."""


class CatalogError(ValueError):
    """Two reasons have one name, or a pattern cannot be used."""


@dataclass(frozen=True, slots=True)
class Match:
    """One rule that recognised a line, and what it says."""

    rule: Rule
    events: tuple[Event, ...]


def topics() -> Iterator[ModuleType]:
    """Every topic module below `subsystems/`, in the order of their names."""
    for found in sorted(pkgutil.walk_packages(subsystems.__path__, f"{subsystems.__name__}."), key=lambda each: each.name):
        if not found.ispkg:
            yield importlib.import_module(found.name)


def object_of(match: re.Match[str]) -> str:
    """The device that a match is about: group `pci` in sysfs form, else group `object` as printed, else nothing."""
    groups = match.groupdict()
    if groups.get("pci"):
        return pci.normalise(groups["pci"])
    return groups.get("object") or ""


def pattern_rules(reason: Reason) -> Iterator[Rule]:
    """The rules of a reason's patterns and of its recovery lines."""
    for pattern in reason.patterns:
        yield Rule(reason.name, pattern.sources, pattern.regex, lambda match, _, r=reason: (r.found(object_of(match)),))
    for pattern in reason.recoveries:
        yield Rule(
            f"{reason.name} recovery",
            pattern.sources,
            pattern.regex,
            lambda match, _, r=reason: (Recovery(ClearKind.LINE, object_of(match) or None, r.name),),
        )


def context_rule(topic: str, pattern: Pattern) -> Rule:
    """A rule that recognises a line and yields nothing."""
    return Rule(f"context of {topic}", pattern.sources, pattern.regex, lambda _match, _record: ())


@dataclass(frozen=True)
class Catalog:
    """All reasons by name, and the rules of every stream behind one prefilter each."""

    reasons: Mapping[str, Reason]
    rules: tuple[Rule, ...]
    _compiled: dict[str, re.Pattern[str]] = field(default_factory=dict, compare=False, repr=False)

    @cached_property
    def streams(self) -> Mapping[str, tuple[Rule, ...]]:
        """The rules of each stream (`kmsg`, `journal:kubelet.service`, `file:/var/log/x`)."""
        found: dict[str, list[Rule]] = {}
        for rule in self.rules:
            for source in rule.sources:
                found.setdefault(source, []).append(rule)
        return {source: tuple(rules) for source, rules in sorted(found.items())}

    @cached_property
    def _prefilters(self) -> Mapping[str, Prefilter]:
        return {stream: Prefilter([rule.regex for rule in rules]) for stream, rules in self.streams.items()}

    def read(self, record: Record) -> list[Match]:
        """Every rule of the record's streams that recognises it; a rule that two streams share is tried once."""
        found: list[Match] = []
        for stream in record.streams:
            prefilter = self._prefilters.get(stream)
            candidates = prefilter.candidates(record.text) if prefilter else ()
            if candidates:
                found += self._try([self.streams[stream][index] for index in candidates], record, found)
        return found

    def read_everywhere(self, record: Record) -> list[Match]:
        """The same over every stream's rules and without the prefilter: for `explain` and for its proof."""
        return self._try(self.rules, record, ())

    def _try(self, rules: Iterable[Rule], record: Record, already: Sequence[Match]) -> list[Match]:
        text = unwrap(record.text)
        found: list[Match] = []
        for rule in rules:
            match = self._pattern(rule.regex).search(text)
            if match is not None and not any(rule is earlier.rule for earlier in already):
                found.append(Match(rule, tuple(rule.read(match, record))))
        return found

    def _pattern(self, regex: str) -> re.Pattern[str]:
        """Compiled at the first line that passes the prefilter: most patterns never cost memory."""
        compiled = self._compiled.get(regex)
        if compiled is None:
            compiled = self._compiled[regex] = re.compile(regex)
        return compiled


def is_driver_line(text: str) -> bool:
    """Whether a driver that this exporter knows printed the line."""
    return unwrap(text).startswith(DRIVER_PREFIXES)


def findings(matches: Iterable[Match]) -> list[Finding]:
    """The findings among what matched."""
    return [event for match in matches for event in match.events if isinstance(event, Finding)]


def load() -> Catalog:
    """The built-in catalog.  Raises CatalogError where it is not consistent."""
    reasons: dict[str, Reason] = {}
    rules: list[Rule] = []
    for topic in topics():
        for reason in getattr(topic, "REASONS", ()):
            if reason.name in reasons:
                raise CatalogError(f"two reasons are named {reason.name}")
            reasons[reason.name] = reason
            rules += pattern_rules(reason)
        rules += [context_rule(topic.__name__.rpartition(".")[2], pattern) for pattern in getattr(topic, "CONTEXT", ())]
    return Catalog(reasons, tuple(rules))
