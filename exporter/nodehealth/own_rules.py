"""Operators' own rules: from the configuration to reasons, checked against their own examples when they are loaded.

Their patterns run on google-re2, whose time is linear in the line whatever the pattern; it is loaded only when there is
such a rule.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from nodehealth.model import (
    GPU_RESET,
    LINE,
    OPERATOR,
    REBOOT,
    Clear,
    ClearKind,
    Example,
    Pattern,
    Reason,
)
from nodehealth.prefilter import PatternError, required_literals
from nodehealth.settings import RuleSettings, SettingsError
from nodehealth.wrapper import unwrap

ENGINE = "re2"
_CLEARS = {"reboot": REBOOT, "operator": OPERATOR, "gpu_reset": GPU_RESET}


def compile_linear(key: str, pattern: str) -> Any:
    """The pattern compiled by google-re2.  Raises SettingsError that names the key."""
    try:
        import re2  # noqa: PLC0415 - 2 MiB that only a node with own rules pays
    except ImportError:
        raise SettingsError(f"{key}: own rules need google-re2; install nodehealth-exporter[rules]") from None
    try:
        required_literals(pattern)
        options = re2.Options()
        options.log_errors = False
        return re2.compile(pattern, options)
    except PatternError as error:
        raise SettingsError(f"{key}: {error}") from error
    except re2.error as error:
        why = error.args[0].decode("utf-8", "replace") if isinstance(error.args[0], bytes) else str(error)
        raise SettingsError(f"{key}: not a pattern of google-re2: {why}") from error


def reasons(rules: Iterable[RuleSettings]) -> Iterator[Reason]:
    """One reason for each rule.  Raises SettingsError where a rule contradicts its own examples."""
    seen: set[str] = set()
    for index, rule in enumerate(rules):
        key = f"rules[{index}]"
        if rule.name in seen:
            raise SettingsError(f'{key}.name: two rules are named "{rule.name}"')
        seen.add(rule.name)
        yield _reason(key, rule)


def _reason(key: str, rule: RuleSettings) -> Reason:
    pattern = _pattern(f"{key}.pattern", rule.source, rule.pattern, rule.examples, rule.lookalikes)
    recoveries: tuple[Pattern, ...] = ()
    clears = tuple(_CLEARS[word] for word in rule.clears)
    if rule.quiet:
        clears += (Clear(ClearKind.QUIET, rule.quiet),)
    if rule.recovery:
        recoveries = (_pattern(f"{key}.recovery", rule.source, rule.recovery, rule.recovery_examples, ()),)
        clears += (LINE,)
    return Reason(
        name=rule.name,
        subsystem=rule.subsystem,
        severity=rule.severity,
        action=rule.action,
        summary=rule.summary or f"A rule of this installation's configuration found {rule.name}.",
        remedy=rule.remedy or "See the configuration that defines this rule.",
        clears=clears,
        patterns=(pattern,),
        recoveries=recoveries,
        joins=rule.joins,
        repeats=rule.repeats,
        engine=ENGINE,
    )


def _pattern(key: str, source: str, regex: str, examples: tuple[str, ...], lookalikes: tuple[str, ...]) -> Pattern:
    compiled = compile_linear(key, regex)
    if not examples:
        raise SettingsError(f"{key}: needs at least one example, a line that it must match")
    for line in examples:
        if not compiled.search(unwrap(line)):
            raise SettingsError(f"{key}: does not match its own example {line!r}")
    for line in lookalikes:
        if compiled.search(unwrap(line)):
            raise SettingsError(f"{key}: matches its own lookalike {line!r}")
    return Pattern((source,), regex, tuple(Example(line, _object(compiled, line)) for line in examples), lookalikes)


def _object(compiled: Any, line: str) -> str:
    match: re.Match[str] = compiled.search(unwrap(line))
    return match.groupdict().get("object") or ""
