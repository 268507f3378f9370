"""Renders a View as a Prometheus page.  The only importer of prometheus_client.

A family is looked at again only when the section of the View that it reads is another object, and of that family only
the samples that changed are rendered; everything else is bytes that wait.  Rendering happens in the thread of the scrape,
on an immutable View, without touching the engine.
"""

from __future__ import annotations

import gzip
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric as MetricFamily
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector

from nodehealth.reporters.families import Metric
from nodehealth.view import View

OPENMETRICS_END = b"# EOF\n"
GZIP_LEVEL = 1


@dataclass(frozen=True, slots=True)
class Format:
    """One exposition format: its content type, how a registry is rendered, and what ends the page."""

    content_type: str
    render: Callable[[Collector], bytes]
    end: bytes = b""


TEXT = Format(CONTENT_TYPE_LATEST, generate_latest)
OPENMETRICS = Format(openmetrics.CONTENT_TYPE_LATEST, openmetrics.generate_latest, OPENMETRICS_END)


def negotiate(accept: str) -> Format:
    """OpenMetrics where the scraper asks for it, else the text format."""
    return OPENMETRICS if "application/openmetrics-text" in accept else TEXT


class _One(Collector):
    """A registry of one family, as prometheus_client's renderers want it."""

    def __init__(self, family: MetricFamily) -> None:
        self._family = family

    def collect(self) -> Iterator[MetricFamily]:
        yield self._family


class _Part:
    """One family in one format: each sample's line is kept and rendered again only when its value changed."""

    def __init__(self, metric: Metric, style: Format) -> None:
        self._metric = metric
        self._format = style
        self._section: object = None
        self._head = b""
        self._lines: dict[tuple[str, ...], tuple[float, bytes]] = {}
        self._body = b""

    def body(self, view: View) -> bytes:
        section = self._metric.section(view)
        if not _same(section, self._section):
            self._section = section
            self._body = self._join(dict(self._metric.read(view)))
        return self._body

    def _join(self, samples: dict[tuple[str, ...], float]) -> bytes:
        kept = {labels: line for labels, line in self._lines.items() if samples.get(labels) == line[0]}
        self._render({labels: value for labels, value in samples.items() if labels not in kept}, kept)
        self._lines = kept
        return self._head + b"".join([kept[labels][1] for labels in samples]) if samples else b""

    def _render(self, samples: dict[tuple[str, ...], float], into: dict[tuple[str, ...], tuple[float, bytes]]) -> None:
        """Have prometheus_client render these samples: HELP, TYPE, then one line for each."""
        if not samples:
            return
        kind = CounterMetricFamily if self._metric.kind == "counter" else GaugeMetricFamily
        family = kind(self._metric.name, self._metric.help, labels=self._metric.labels)
        for labels, value in samples.items():
            family.add_metric(labels, value)
        rendered = self._format.render(_One(family)).removesuffix(self._format.end)
        *head, lines = rendered.split(b"\n", 2)
        self._head = b"".join(line + b"\n" for line in head)
        for (labels, value), line in zip(samples.items(), lines.split(b"\n"), strict=False):
            into[labels] = (value, line + b"\n")


def _same(new: object, old: object) -> bool:
    """Identity, not equality: comparing a thousand rows would cost what rendering costs."""
    if type(new) is tuple and type(old) is tuple and len(new) == len(old):
        return all(a is b for a, b in zip(new, old, strict=True))
    return new is old


class Page:
    """The page of /metrics in each format, plain and compressed, kept until the View changes."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        rows = tuple(metrics)
        self._parts = {style: [_Part(metric, style) for metric in rows] for style in (TEXT, OPENMETRICS)}
        self._lock = threading.Lock()
        self._kept: dict[tuple[Format, bool], tuple[View, bytes]] = {}

    def body(self, view: View, style: Format, *, compressed: bool) -> bytes:
        """The page of a View."""
        with self._lock:  # only memory is touched under it
            kept = self._kept.get((style, compressed))
            if kept is not None and kept[0] is view:
                return kept[1]
            body = b"".join(part.body(view) for part in self._parts[style]) + style.end
            body = gzip.compress(body, GZIP_LEVEL) if compressed else body
            self._kept[style, compressed] = (view, body)
            return body
