"""Renders a View as a Prometheus page.  The only importer of prometheus_client.

A family is looked at again only when the section of the View that it reads is another object, and of that family only
the samples that are new are rendered and the numbers that changed exchanged; everything else is bytes that wait.  The page
is rendered when a View is published, in the forms that scrapers asked for before, or by the scrape that comes first.
"""

from __future__ import annotations

import struct
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric as MetricFamily
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from nodehealth.reporters.families import Metric
from nodehealth.view import View

OPENMETRICS_END = b"# EOF\n"
DEFLATE = (
    1,
    zlib.DEFLATED,
    -12,
    5,
)  # fastest, raw, window of 4 KiB: lines repeat within that, and it costs little to begin
GZIP_HEADER = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"  # deflate, no name, no time, unknown system


@dataclass(frozen=True, slots=True)
class Format:
    """One exposition format: its content type, how a registry is rendered, and what ends the page."""

    content_type: str
    render: Callable[[Collector], bytes]
    end: bytes = b""


TEXT = Format(CONTENT_TYPE_PLAIN_0_0_4, generate_latest)  # 1.0.0 only for who asks for it: expfmt and Telegraf refuse it
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
        self._lines: dict[tuple[str, ...], _Line] = {}
        self._body = b""
        self._deflated: bytes | None = b""

    def body(self, view: View) -> bytes:
        section = self._metric.section(view)
        if not _same(section, self._section):
            self._section = section
            body = self._join(dict(self._metric.read(view)))
            if body != self._body:
                self._body, self._deflated = body, None
        return self._body

    def deflated(self) -> bytes:
        """The compressed form of the last body: complete deflate blocks that refer to nothing before them."""
        if self._deflated is None:
            compressor = zlib.compressobj(*DEFLATE)
            self._deflated = compressor.compress(self._body) + compressor.flush(zlib.Z_FULL_FLUSH)
        return self._deflated

    def _join(self, samples: dict[tuple[str, ...], float]) -> bytes:
        lines = self._lines
        self._render({labels: value for labels, value in samples.items() if labels not in lines})
        for labels, value in samples.items():
            line = lines[labels]
            if line.value != value:
                line.show(value)
        if len(lines) > len(samples):
            self._lines = lines = {labels: lines[labels] for labels in samples}
        return self._head + b"".join([lines[labels].text for labels in samples]) if samples else b""

    def _render(self, samples: dict[tuple[str, ...], float]) -> None:
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
        for (labels, value), text in zip(samples.items(), lines.split(b"\n"), strict=False):
            self._lines[labels] = _Line(value, text + b"\n")


class _Line:
    """One sample as it was rendered once; afterwards only its number is exchanged."""

    __slots__ = ("_name", "text", "value")

    def __init__(self, value: float, text: bytes) -> None:
        self.value = value
        self.text = text
        self._name = text[: text.rindex(b" ") + 1]

    def show(self, value: float) -> None:
        """The same sample with another value."""
        self.value = value
        self.text = self._name + str(floatToGoString(value)).encode() + b"\n"  # type: ignore[no-untyped-call]


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
            parts = self._parts[style]
            body = b"".join([part.body(view) for part in parts]) + style.end
            if compressed:
                body = _gzip(body, [part.deflated() for part in parts], style.end)
            self._kept[style, compressed] = (view, body)
            return body

    def prepare(self, view: View) -> None:
        """Render this View in the forms that were asked for before, so that the next scrape finds it ready."""
        for style, compressed in list(self._kept):
            self.body(view, style, compressed=compressed)


def _gzip(body: bytes, blocks: list[bytes], end: bytes) -> bytes:
    """One gzip member (RFC 1952) of blocks that were compressed before: only what changed is compressed again."""
    compressor = zlib.compressobj(*DEFLATE)
    last = compressor.compress(end) + compressor.flush()
    trailer = struct.pack("<LL", zlib.crc32(body), len(body) & 0xFFFFFFFF)
    return b"".join([GZIP_HEADER, *blocks, last, trailer])
