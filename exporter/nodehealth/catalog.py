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
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from types import ModuleType

from nodehealth import own_rules, pci, subsystems
from nodehealth.checks import Planned
from nodehealth.model import ClearKind, Event, Finding, Override, Pattern, Reason, Record, Recovery, Rule
from nodehealth.numbers import Family
from nodehealth.prefilter import Prefilter
from nodehealth.settings import CheckSettings, Settings, SettingsError, nearest
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
        yield Rule(reason.name, pattern.sources, pattern.regex, partial(_find, reason), reason.engine)
    for pattern in reason.recoveries:
        yield Rule(f"{reason.name} recovery", pattern.sources, pattern.regex, partial(_recover, reason), reason.engine)


def context_rule(topic: str, pattern: Pattern) -> Rule:
    """A rule that recognises a line and yields nothing."""
    return Rule(f"context of {topic}", pattern.sources, pattern.regex, _nothing)


def _find(reason: Reason, match: re.Match[str], _record: Record) -> tuple[Event, ...]:
    return (reason.found(object_of(match)),)


def _recover(reason: Reason, match: re.Match[str], _record: Record) -> tuple[Event, ...]:
    return (Recovery(ClearKind.LINE, object_of(match) or None, reason.name),)


def _nothing(_match: re.Match[str], _record: Record) -> tuple[Event, ...]:
    return ()


@dataclass(frozen=True)
class Catalog:
    """All reasons by name, and the rules of every stream behind one prefilter each."""

    reasons: Mapping[str, Reason]
    rules: tuple[Rule, ...]
    families: Mapping[str, Family] = field(default_factory=dict)
    checks: Mapping[str, Planned] = field(default_factory=dict)
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
            match = self._pattern(rule).search(text)
            if match is not None and not any(rule is earlier.rule for earlier in already):
                found.append(Match(rule, tuple(rule.read(match, record))))
        return found

    def _pattern(self, rule: Rule) -> re.Pattern[str]:
        """Compiled at the first line that passes the prefilter: most patterns never cost memory."""
        compiled = self._compiled.get(rule.regex)
        if compiled is None:
            compile_ = re.compile if rule.engine == "re" else partial(own_rules.compile_linear, rule.name)
            compiled = self._compiled[rule.regex] = compile_(rule.regex)
        return compiled


def is_driver_line(text: str) -> bool:
    """Whether a driver that this exporter knows printed the line."""
    return any(prefix in text for prefix in DRIVER_PREFIXES) and unwrap(text).startswith(DRIVER_PREFIXES)


def findings(matches: Iterable[Match]) -> list[Finding]:
    """The findings among what matched."""
    return [event for match in matches for event in match.events if isinstance(event, Finding)]


def load(settings: Settings | None = None) -> Catalog:
    """The catalog under a configuration.

    Raises CatalogError where two reasons have one name, and SettingsError where the configuration names a reason that
    does not exist or a rule that does not do what its examples say.
    """
    settings = settings or Settings()
    reasons: dict[str, Reason] = {}
    rules: list[Rule] = []
    families: dict[str, Family] = {}
    checks: dict[str, Planned] = {}
    for topic in topics():
        found, read = _topic(topic, settings)
        rules += read
        if hasattr(topic, "family"):
            families[_name(topic)] = topic.family(_overrides(topic, settings))
        checks |= _checks(topic, settings, checks)
        for reason in found:
            if reason.name in reasons:
                raise CatalogError(f"two reasons are named {reason.name}")
            reasons[reason.name] = reason
    _refuse_unknown("reasons", "reason", settings.reasons, reasons)
    _refuse_unknown("checks", "check", settings.checks, checks)
    for reason in own_rules.reasons(settings.rules):
        if reason.name in reasons:
            raise SettingsError(f'rules: a built-in reason is named "{reason.name}" already')
        reasons[reason.name] = reason
        rules += pattern_rules(reason)
    return Catalog(reasons, tuple(rules), families, checks)


def _refuse_unknown(key: str, word: str, given: Iterable[str], known: Iterable[str]) -> None:
    for name in given:
        if name not in known:
            raise SettingsError(f'{key}: no {word} is named "{name}"{nearest(name, known)}')


def _topic(topic: ModuleType, settings: Settings) -> tuple[tuple[Reason, ...], tuple[Rule, ...]]:
    """The reasons and rules of one topic, as the configuration grades them."""
    context = tuple(context_rule(_name(topic), pattern) for pattern in getattr(topic, "CONTEXT", ()))
    if hasattr(topic, "build"):
        reasons, rules = topic.build(_overrides(topic, settings), lambda reason: _graded(reason, settings))
        return reasons, rules + context
    reasons = tuple(_graded(reason, settings) for reason in getattr(topic, "REASONS", ()))
    return reasons, tuple(rule for reason in reasons if reason.enabled for rule in pattern_rules(reason)) + context


def _checks(topic: ModuleType, settings: Settings, known: Mapping[str, Planned]) -> dict[str, Planned]:
    """The checks of one topic, as the configuration wants them."""
    found: dict[str, Planned] = {}
    for check in getattr(topic, "CHECKS", ()):
        if check.name in known or check.name in found:
            raise CatalogError(f"two checks are named {check.name}")
        said = settings.checks.get(check.name, CheckSettings())
        for name in said.thresholds:
            if name not in check.thresholds:
                where = f"checks.{check.name}.thresholds"
                raise SettingsError(f'{where}: no threshold is named "{name}"{nearest(name, check.thresholds)}')
        enabled = check.enabled if said.enabled is None else said.enabled
        found[check.name] = Planned(
            topic.__name__,
            replace(check, enabled=enabled),
            said.period or check.period,
            {**check.thresholds, **said.thresholds},
        )
    return found


def _name(topic: ModuleType) -> str:
    return topic.__name__.rpartition(".")[2]


def _overrides(topic: ModuleType, settings: Settings) -> Mapping[int, Override]:
    return settings.sxids if _name(topic) == "sxid" else settings.xids


def _graded(reason: Reason, settings: Settings) -> Reason:
    """The reason with what the configuration says of it."""
    said = settings.reasons.get(reason.name)
    if said is None:
        return reason
    return replace(
        reason,
        enabled=reason.enabled if said.enabled is None else said.enabled,
        severity=said.severity or reason.severity,
        action=said.action or reason.action,
    )
