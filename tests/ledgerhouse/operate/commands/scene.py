"""Whose books these are, and when."""

from __future__ import annotations

from datetime import timedelta

from extract.core.interval import Interval
from tests.helpers.books import of

START, NOW = "2024-11-01T00:00:00Z", "2024-11-22T12:00:00Z"
HOLE = Interval("2024-11-12T00:00:00Z", "2024-11-13T12:00:00Z")
SIX_HOURS, DAY = timedelta(hours=6), timedelta(days=1)
SOURCES = ("coinbase", "debank")
COINBASE, WHOLE, BROKEN, OTHER = ACCOUNTS = [a for source in SOURCES for a in of(source)]


def six_hourly(span: Interval) -> list[Interval]:
    count = (span.end - span.start) // SIX_HOURS
    return [
        Interval(span.start + n * SIX_HOURS, span.start + (n + 1) * SIX_HOURS) for n in range(count)
    ]


# What is estimated and then made: the hole by runs of six hours, and known time all over again.
KNOWN = Interval("2024-11-18T06:00:00Z", "2024-11-18T12:00:00Z")
TRIES = {
    "hole": (six_hourly(HOLE), [BROKEN], False),
    "again": ([KNOWN], ACCOUNTS, True),
    "long ago": ([Interval(START, "2024-11-03")], [COINBASE, OTHER], True),
    "of late": (six_hourly(Interval("2024-11-22T00:00:00Z", NOW)), [OTHER], False),
}
