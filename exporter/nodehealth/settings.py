"""The configuration file: typed, validated, and refused with the name of the key that is wrong.

The file is YAML.  Nothing here reads the environment or argv (that is `cli`'s), and nothing here knows what a setting
does.  Every error is a SettingsError whose text a person can act on.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

from nodehealth.model import Action, Override, Repetition, Severity, Subsystem


class SettingsError(ValueError):
    """A key or value cannot be used; the message names the key and the nearest valid one."""


class Trust(StrEnum):
    """What to make of kernel-log records that user space wrote: `drill` counts and marks them as injected."""

    NEVER = "never"
    DRILL = "drill"
    ALWAYS = "always"


@dataclass(frozen=True, slots=True)
class ReasonSettings:
    """What the configuration changes about one built-in reason."""

    enabled: bool | None = None
    severity: Severity | None = None
    action: Action | None = None


@dataclass(frozen=True, slots=True)
class RuleSettings:
    """An operator's own rule; `clears` is the seconds of quiet, `reboot`, `operator` or a recovery pattern."""

    name: str
    source: str
    pattern: str
    subsystem: Subsystem
    severity: Severity
    examples: tuple[str, ...]
    action: Action = Action.INVESTIGATE
    summary: str = ""
    remedy: str = ""
    lookalikes: tuple[str, ...] = ()
    clears: tuple[str, ...] = ("operator",)
    quiet: float = 0.0
    recovery: str = ""
    recovery_examples: tuple[str, ...] = ()
    joins: float = 0.0
    repeats: Repetition | None = None


@dataclass(frozen=True, slots=True)
class CheckSettings:
    """What the configuration changes about one check; None keeps the built-in value."""

    enabled: bool | None = None
    period: float | None = None
    thresholds: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Settings:
    """The whole configuration with its defaults."""

    required_sources: tuple[str, ...] = ()
    disabled_sources: tuple[str, ...] = ()
    trust_user_records: Trust = Trust.DRILL
    backlog_max_age: float = 3600.0
    reasons: Mapping[str, ReasonSettings] = field(default_factory=dict)
    xids: Mapping[int, Override] = field(default_factory=dict)
    sxids: Mapping[int, Override] = field(default_factory=dict)
    rules: tuple[RuleSettings, ...] = ()
    checks: Mapping[str, CheckSettings] = field(default_factory=dict)


T = TypeVar("T")
Parser = Callable[[str, Any], T]
MAX_LISTED = 20  # valid words in a message; a longer list helps nobody
_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)([smhd]?)\Z")
_SOURCE = re.compile(r"kmsg\Z|journal:[\w@.:-]{1,128}\Z|file:/[^\0]{1,1024}\Z")


def nearest(word: str, valid: Iterable[str]) -> str:
    """`; did you mean "x"?` for the nearest valid word, else all of them or, of many, the three nearest."""
    words = {each.lower(): each for each in sorted(valid)}
    if close := difflib.get_close_matches(word.lower(), words, n=1, cutoff=0.5):
        return f'; did you mean "{words[close[0]]}"?'
    if len(words) <= MAX_LISTED:
        return f"; valid: {', '.join(words.values())}"
    close = difflib.get_close_matches(word.lower(), words, n=3, cutoff=0.0)
    return f"; the nearest of {len(words)}: {', '.join(words[each] for each in close)}"


def duration(key: str, value: Any) -> float:
    """Seconds of `90`, `90s`, `15m`, `1h` or `7d`."""
    match = _DURATION.match(str(value)) if not isinstance(value, bool) else None
    if match is None:
        raise SettingsError(f'{key}: "{value}" is no time; write for example 90s, 15m, 1h or 7d')
    return float(match[1]) * _UNITS[match[2]]


def span(key: str, value: Any) -> float:
    """A time longer than none."""
    seconds = duration(key, value)
    if not seconds:
        raise SettingsError(f"{key}: a time longer than 0 is needed")
    return seconds


def text(key: str, value: Any) -> str:
    """A non-empty string."""
    if not isinstance(value, str) or not value:
        raise SettingsError(f"{key}: a text is needed, not {_kind(value)}")
    if not value.isascii() and value.encode("utf-8", "replace").decode() != value:
        raise SettingsError(f"{key}: a text that is no Unicode: {value!r}")
    return value


def flag(key: str, value: Any) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise SettingsError(f"{key}: true or false is needed, not {_kind(value)}")
    return value


def number(key: str, value: Any) -> int:
    """A whole number of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise SettingsError(f"{key}: a whole number of at least 1 is needed, not {value!r}")
    return value


def choice(kind: type[StrEnum]) -> Parser[Any]:
    """One value of an enumeration."""

    def parse(key: str, value: Any) -> Any:
        try:
            return kind(value)
        except ValueError:
            raise SettingsError(
                f'{key}: "{value}" is not valid{nearest(str(value), [str(each) for each in kind])}'
            ) from None

    return parse


def list_of(item: Parser[T]) -> Parser[tuple[T, ...]]:
    """A list of items."""

    def parse(key: str, value: Any) -> tuple[T, ...]:
        if not isinstance(value, list):
            raise SettingsError(f"{key}: a list is needed, not {_kind(value)}")
        return tuple(item(f"{key}[{index}]", each) for index, each in enumerate(value))

    return parse


def source(key: str, value: Any) -> str:
    """The name of a source of lines."""
    if not _SOURCE.match(str(value)):
        raise SettingsError(f'{key}: "{value}" is no source; write kmsg, journal:<unit or identifier> or file:/<path>')
    return str(value)


def _kind(value: Any) -> str:
    return {type(None): "nothing", dict: "a mapping", list: "a list"}.get(type(value), repr(value))


def _mapping(key: str, value: Any) -> dict[Any, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise SettingsError(f"{key or 'the file'}: a mapping (key: value) is needed, not {_kind(value)}")
    return value


def _fields(key: str, value: Any, parsers: Mapping[str, Parser[Any]], required: Iterable[str] = ()) -> dict[str, Any]:
    """The parsed values of a mapping whose keys are all known."""
    given = _mapping(key, value)
    prefix = f"{key}." if key else ""
    for name in given:
        if name not in parsers:
            raise SettingsError(f'unknown key "{prefix}{name}"{nearest(str(name), parsers)}')
    for name in required:
        if name not in given:
            raise SettingsError(f'{key}: key "{name}" is missing')
    return {name: parsers[name](f"{prefix}{name}", each) for name, each in given.items()}


def _reason(key: str, value: Any) -> ReasonSettings:
    parsers = {"enabled": flag, "severity": choice(Severity), "action": choice(Action)}
    return ReasonSettings(**_fields(key, value, parsers))


def _override(key: str, value: Any) -> Override:
    parsers = {"severity": choice(Severity), "action": choice(Action), "count": number, "within": span}
    found = _fields(key, value, parsers)
    count, within = found.pop("count", None), found.pop("within", None)
    if (count is None) != (within is None):
        raise SettingsError(f'{key}: "count" and "within" belong together (so many times within that time)')
    repetition = Repetition(count, within) if count is not None else None
    severity = found.get("severity", Severity.CRITICAL if repetition else None)
    return Override(severity, found.get("action"), repetition)


def _by_number(key: str, value: Any) -> dict[int, Override]:
    found: dict[int, Override] = {}
    for code, each in _mapping(key, value).items():
        if isinstance(code, bool) or not isinstance(code, int) or code < 0:
            raise SettingsError(f'{key}: "{code}" is no number of NVIDIA\'s catalog; write for example {key}: {{79: ...}}')
        found[code] = _override(f"{key}.{code}", each)
    return found


def _by_name(key: str, value: Any) -> dict[str, ReasonSettings]:
    return {str(name): _reason(f"{key}.{name}", each) for name, each in _mapping(key, value).items()}


def _by_check(key: str, value: Any) -> dict[str, CheckSettings]:
    return {str(name): _check(f"{key}.{name}", each) for name, each in _mapping(key, value).items()}


def _check(key: str, value: Any) -> CheckSettings:
    parsers: dict[str, Parser[Any]] = {"enabled": flag, "period": period, "thresholds": _thresholds}
    return CheckSettings(**_fields(key, value, parsers))


def _thresholds(key: str, value: Any) -> dict[str, float]:
    return {str(name): amount(f"{key}.{name}", each) for name, each in _mapping(key, value).items()}


def amount(key: str, value: Any) -> float:
    """A number that is not negative."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise SettingsError(f"{key}: a number that is not negative is needed, not {value!r}")
    return float(value)


def period(key: str, value: Any) -> float:
    """A time of at least a second."""
    seconds = duration(key, value)
    if seconds < 1:
        raise SettingsError(f"{key}: at least 1s is needed, not {value!r}")
    return seconds


def _rule(key: str, value: Any) -> RuleSettings:
    texts = list_of(text)
    parsers: dict[str, Parser[Any]] = {
        "name": text,
        "source": source,
        "pattern": text,
        "subsystem": choice(Subsystem),
        "severity": choice(Severity),
        "action": choice(Action),
        "summary": text,
        "remedy": text,
        "examples": texts,
        "lookalikes": texts,
        "clears": list_of(choice(RuleClear)),
        "quiet": duration,
        "recovery": text,
        "recovery_examples": texts,
        "joins": duration,
        "repeats": _repetition,
    }
    found = _fields(key, value, parsers, ("name", "source", "pattern", "subsystem", "severity", "examples"))
    if not re.fullmatch(r"[A-Z][A-Za-z0-9]{2,63}", found["name"]):
        raise SettingsError(
            f'{key}.name: "{found["name"]}" is no reason\'s name; write PascalCase, for example RaidDegraded'
        )
    return RuleSettings(**found)


class RuleClear(StrEnum):
    """How an operator's finding may end besides by quiet or a recovery line."""

    REBOOT = "reboot"
    OPERATOR = "operator"
    GPU_RESET = "gpu_reset"


def _repetition(key: str, value: Any) -> Repetition:
    found = _fields(key, value, {"count": number, "within": span}, ("count", "within"))
    return Repetition(found["count"], found["within"])


def _sources(key: str, value: Any) -> dict[str, Any]:
    names = list_of(source_name)
    return _fields(key, value, {"required": names, "disabled": names})


def source_name(key: str, value: Any) -> str:
    """`kmsg`, `journal`, or one file."""
    if value not in ("kmsg", "journal") and not str(value).startswith("file:/"):
        raise SettingsError(f'{key}: "{value}" is no source; write kmsg, journal or file:/<path>')
    return str(value)


def parse(document: Any) -> Settings:
    """Settings of a parsed YAML document.  Raises SettingsError."""
    found = _fields(
        "",
        document,
        {
            "sources": _sources,
            "trust_user_records": choice(Trust),
            "backlog_max_age": duration,
            "reasons": _by_name,
            "xids": _by_number,
            "sxids": _by_number,
            "rules": list_of(_rule),
            "checks": _by_check,
        },
    )
    sources = found.pop("sources", {})
    return Settings(required_sources=sources.get("required", ()), disabled_sources=sources.get("disabled", ()), **found)


def load(path: Path) -> Settings:
    """Settings of a file.  Raises SettingsError, also where the file cannot be read."""
    import yaml  # 1 MiB that only a node with a configuration file pays  # noqa: PLC0415

    try:
        return parse(yaml.safe_load(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise SettingsError(f"cannot read {path}: {error.strerror}") from error
    except SettingsError as error:
        raise SettingsError(f"{path}: {error}") from error
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError, RecursionError) as error:
        # PyYAML lets the errors of its constructors through: month 99, `!!int zz`, a number of 5,000 digits
        raise SettingsError(f"{path} is not YAML: {error}") from error
