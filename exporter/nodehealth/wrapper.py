"""Takes the wrapper off a line: what dmesg, syslog, journalctl or a raw kmsg record put before the driver's own text.

Patterns are written for the bare text, so that `^` means what the driver printed first.  A syslog wrapper is taken off
only where the program is `kernel`; what another program printed keeps its name and so cannot pass for a driver's line.
"""

from __future__ import annotations

import re

_MONTH = r"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)"
_ISO = r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d{1,9})?(?:Z|[+-]\d\d:?\d\d)?"
_DAY = r"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)"
_CTIME = rf"{_DAY} {_MONTH} {{1,2}}\d{{1,2}} \d\d:\d\d:\d\d(?: \d{{4}})?"
_FULL = rf"{_DAY} \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d [A-Z]{{2,5}}"
_SYSLOG = rf"{_MONTH} {{1,2}}\d{{1,2}} \d\d:\d\d:\d\d(?:\.\d{{1,6}})?"
_DELTA = r"<[ +-]{0,12}\d{1,10}\.\d{1,9}>"  # time since the line before, of dmesg --show-delta

_LAYER = re.compile(
    r"\s{0,16}(?:"
    r"<\d{1,3}>(?:1 (?=\d{4}-))?"  # priority of printk and syslog, with the version of RFC 5424
    r"|\d{1,4},\d{1,20},\d{1,20},[-c+](?:,[^;\n]{0,128})?;"  # raw /dev/kmsg record
    r"|(?:kern|user|daemon|syslog) {0,3}:[a-z]{3,7} {0,3}:"  # dmesg --decode
    rf"|\[ {{0,12}}\d{{1,14}}(?:\.\d{{1,9}})?(?: {_DELTA})?\](?:\[ {{0,8}}[TC]\d{{1,8}}\])?"  # printk time and caller
    rf"|\[(?:{_CTIME}|{_ISO})(?: {_DELTA})?\]"  # dmesg -T
    rf"|\[(?:{_DELTA}| {{0,8}}\+\d{{1,9}}\.\d{{1,9}}|{_MONTH} ?\d{{1,2}} \d\d:\d\d)\]"  # dmesg --reltime
    rf"|{_ISO}(?= )"
    rf"|{_CTIME}(?= )"
    rf"|{_SYSLOG}(?= )"
    rf"|{_FULL}(?= )"  # journalctl -o short-full
    r"|\d{10}\.\d{6}(?= )"  # journalctl -o short-unix
    r"|(?:[A-Za-z0-9][\w.-]{0,252} {1,4})?kernel(?:: {0,4}| - - - )"  # host and program of syslog
    r"|message repeated \d{1,6} times: \["
    r")\s{0,16}"
)
_MAX_LAYERS = 8


def unwrap(line: str) -> str:
    """The driver's own text of a line in any wrapper; a bare line comes back as it is."""
    text = line
    for _ in range(_MAX_LAYERS):
        layer = _LAYER.match(text)
        if layer is None:
            return text
        text = text[layer.end() :]
    return text
