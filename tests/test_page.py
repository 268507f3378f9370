"""The status page: what people read, safe whatever a log or a device said."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import product

import pytest

from nodehealth.model import Severity
from nodehealth.reporters.page import MAX_ROWS, REFRESH_SECONDS, render
from nodehealth.sources.host import Gpu
from nodehealth.view import Count, Happening, SourceState, SourceView, View
from views import ADDRESS, CATALOG, LINE, NOW, SELF, occurrence, problem, sick, view

HOSTILE = "</code><script>alert(1)</script><img src=x onerror=alert(1)>\"'&lt; \x1b[31m\x00"
ALLOWED = set(
    re.findall(r"\w+", "html head meta title style body main header section ul li h1 h2 p b br a span small code div")
)
ALLOWED |= {"table", "thead", "tbody", "tr", "th", "td"}
VOID = {"meta", "br"}


class Document(HTMLParser):
    """The tags, attributes and text of a page; refuses what does not close."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(page)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open[-1:] != ["style"]:
            self.text += f"{data} "


def read(shown: View | None) -> Document:
    return Document(render(shown))


def test_page_of_a_sick_node_says_what_where_since_when_and_what_to_do() -> None:
    text = read(sick()).text
    reason = CATALOG.reasons["NvidiaXIDErrorRebootNode"]
    for part in (
        "This node is unhealthy: 1 critical problem",
        "critical",
        reason.name,
        reason.summary,
        "reboot node",
        reason.remedy,
        ADDRESS,
        "Xid 79",
        "GPU 0 GPU-1234",
        "2023-11-14 22:13:20Z",
        LINE,
    ):
        assert part in text, part


@pytest.mark.parametrize(
    ("severity", "headline"),
    [
        ("critical", "This node is unhealthy"),
        ("warning", "This node works, with warnings"),
        ("info", "This node is healthy"),
    ],
)
def test_headline_follows_the_worst_problem(severity: str, headline: str) -> None:
    reason = replace(CATALOG.reasons["NvidiaXIDError"], severity=Severity(severity))
    found = read(view(problems=(replace(problem(), reason=reason),)))
    assert headline in found.text


def test_page_of_a_well_node() -> None:
    text = read(view()).text
    assert "This node is healthy" in text
    assert "Problems None." in text
    assert "12 records, 1 recognised" in text
    assert "NVIDIA H100" in text


def test_node_that_nobody_observes_is_not_called_healthy() -> None:
    down = SourceView("kmsg", SourceState.DOWN, "cannot open /dev/kmsg", serves=frozenset({"kmsg"}))
    text = read(view(sources=(down,))).text
    assert "This node is not observed" in text
    assert "cannot open /dev/kmsg" in text
    assert "healthy" not in text.replace("unhealthy", "").replace("nodehealth", "")


@pytest.mark.parametrize("shown", [None, view(self_=replace(SELF, ready=False))])
def test_before_the_backlog_is_read_the_page_says_so(shown: View | None) -> None:
    assert "Reading what was logged before the start." in read(shown).text


def test_page_refreshes_itself_and_needs_no_script() -> None:
    for shown in (None, view(), sick()):
        found = read(shown)
        assert ("http-equiv", "refresh") in found.attributes
        assert ("content", str(REFRESH_SECONDS)) in found.attributes
        assert set(found.tags) <= ALLOWED
        assert not any(
            name.startswith("on") or (value or "").startswith(("http", "javascript")) for name, value in found.attributes
        )


def test_page_has_a_language_a_title_and_headings_of_its_columns() -> None:
    found = read(sick())
    assert ("lang", "en") in found.attributes
    assert "unhealthy: nodehealth" in found.text
    assert all(head in found.text for head in ("Severity", "What", "Where", "What to do", "Since", "Evidence"))


# -- hostile text ------------------------------------------------------------------------------------------------------


def hostile() -> View:
    """Everything that a log, a device or a configuration can say is an attack."""
    reason = replace(CATALOG.reasons["NvidiaXIDError"], summary=HOSTILE, remedy=HOSTILE)
    return view(
        problems=(
            problem(object_=HOSTILE, text=HOSTILE, variant=HOSTILE, source=HOSTILE),
            replace(problem("OOMKill", HOSTILE, variant=HOSTILE), reason=reason, text=HOSTILE, injected=True),
        ),
        gpus=(Gpu(0, HOSTILE, HOSTILE, HOSTILE),),
        numbers={("xid", HOSTILE, HOSTILE): Count(1, NOW)},
        sources=(
            SourceView(HOSTILE, SourceState.DOWN, HOSTILE),
            SourceView("kmsg", SourceState.UP, serves=frozenset({"kmsg"})),
        ),
        history=(
            occurrence(text=HOSTILE, object=HOSTILE, variant=HOSTILE, reason=HOSTILE),
            occurrence(happening=Happening.CLEARED, how=HOSTILE),
        ),
        self_=replace(SELF, state_note=HOSTILE, version=HOSTILE),
    )


def test_hostile_text_is_shown_and_does_nothing() -> None:
    page = render(hostile())
    found = Document(page)
    assert set(found.tags) <= ALLOWED
    assert "<script" not in page
    assert not any(name.startswith("on") for name, _ in found.attributes)
    assert found.text.count("alert(1)") >= 20, "it is shown as text"


# -- details -----------------------------------------------------------------------------------------------------------


def test_number_is_named_by_its_family() -> None:
    switch = problem("NvidiaSXIDError", "0000:05:00.0", variant="20034")
    other = problem("OOMKill", "python", variant="")
    text = read(view(problems=(problem(), switch, other))).text
    assert "Xid 79" in text
    assert "SXid 20034" in text
    assert "no GPU of this node" not in text


def test_gpu_that_is_not_of_this_node_is_said_to_be_none() -> None:
    assert "no GPU of this node" in read(view(problems=(problem(object_="0000:99:00.0"),))).text


def test_injected_problem_is_marked() -> None:
    assert "injected" in read(view(problems=(problem(injected=True),))).text
    assert "injected" not in read(sick()).text


def test_cleared_problem_is_not_shown_as_one() -> None:
    assert "Problems None." in read(view(problems=(problem(cleared=NOW + 5),))).text


def test_critical_problems_come_first_and_many_are_cut() -> None:
    many = tuple(
        problem("NvidiaXIDWarning", f"0000:{bus:02x}:{device:02x}.0") for bus, device in product(range(10), range(12))
    )
    found = read(view(problems=(*many, problem())))
    text = found.text
    assert text.index("NvidiaXIDErrorRebootNode") < text.index("NvidiaXIDWarning")
    assert f"and {len(many) + 1 - MAX_ROWS} more" in text


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"persistent": False}, "state is not kept over restarts"),
        ({"saved": False}, "the disk does not take the newest state"),
        ({"state_note": "it was set aside"}, "it was set aside"),
        ({"config_reload_ok": False}, "the last configuration was refused; the one before it holds"),
    ],
)
def test_page_says_what_is_wrong_with_the_exporter_itself(changes: dict[str, object], sentence: str) -> None:
    assert sentence not in read(view()).text
    assert sentence in read(view(self_=replace(SELF, **changes))).text  # type: ignore[arg-type]


def test_last_events_are_newest_first_and_few() -> None:
    history = tuple(occurrence(time=NOW + index, text=f"line {index} end") for index in range(50))
    shown = [int(each) for each in re.findall(r"line (\d+) end", read(view(history=history)).text)]
    assert shown == list(range(49, 29, -1))


def test_lost_records_and_gaps_are_shown() -> None:
    source = SourceView("kmsg", SourceState.UP, serves=frozenset({"kmsg"}), lost=5, gaps=2, last_record=NOW)
    assert "5 and 2 gaps" in read(view(sources=(source,))).text
