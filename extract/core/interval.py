"""UTC datetimes, ISO 8601 text, half-open intervals of time [start, end), and their unions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, TypeVar

__all__ = ["UTC", "Interval", "Span", "closed", "first_of_month", "iso", "joined", "union", "utc"]


def utc(value: str | datetime) -> datetime:
    """An aware datetime in UTC from ISO 8601 text or a datetime; text without a zone is UTC."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value.strip().replace("Z", "+00:00"))
        except ValueError:
            raise ValueError(
                f"{value!r} is not an ISO 8601 time; write it like 2026-01-31T06:00:00Z"
            ) from None
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def iso(moment: datetime) -> str:
    """2026-01-31T06:00:00Z, with microseconds only where there are any."""
    return utc(moment).isoformat().replace("+00:00", "Z")


@dataclass(frozen=True, order=True)
class Interval:
    """A half-open span of time, [start, end), in UTC: start belongs to it, end does not."""

    start: datetime
    end: datetime

    def __post_init__(self) -> None:
        object.__setattr__(self, "start", utc(self.start))
        object.__setattr__(self, "end", utc(self.end))
        if self.start >= self.end:
            raise ValueError(
                f"empty interval [{iso(self.start)}, {iso(self.end)}): the end must be after the "
                "start. Give both ends, for example "
                "interval_start=2026-01-01T00:00:00Z interval_end=2026-01-01T06:00:00Z"
            )

    def __str__(self) -> str:
        return f"[{iso(self.start)}, {iso(self.end)})"

    def __contains__(self, moment: datetime) -> bool:
        return self.start <= moment < self.end

    def minus(self, covered: Iterable[Interval]) -> list[Interval]:
        """The parts of this interval that no member of `covered` holds, oldest first."""
        gaps, cursor = [], self.start
        for other in union(covered):
            if other.end <= cursor or other.start >= self.end:
                continue
            if other.start > cursor:
                gaps.append(Interval(cursor, other.start))
            cursor = max(cursor, other.end)
        if cursor < self.end:
            gaps.append(Interval(cursor, self.end))
        return gaps

    def by_month(self) -> list[Interval]:
        """The same span cut at the first instant of every calendar month, oldest first."""
        cuts, cursor = [self.start], first_of_month(first_of_month(self.start) + _INTO_NEXT)
        while cursor < self.end:
            cuts.append(cursor)
            cursor = first_of_month(cursor + _INTO_NEXT)
        return [Interval(a, b) for a, b in zip(cuts, [*cuts[1:], self.end])]


_INTO_NEXT = timedelta(days=32)  # from the first of any month into the next one
Day = TypeVar("Day", date, datetime)


def first_of_month(day: Day) -> Day:
    """The first day of the same month, of a datetime its first instant."""
    if isinstance(day, datetime):
        return day.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return day.replace(day=1)


def union(intervals: Iterable[Interval]) -> list[Interval]:
    """The same set of instants with touching and overlapping members merged, oldest first."""
    return [Interval(*span) for span in joined((i.start, i.end) for i in intervals)]


Span = tuple[Any, Any]


def joined(spans: Iterable[Span]) -> list[Span]:
    """Half-open spans of anything ordered, touching and overlapping ones merged, in order."""
    merged: list[Span] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def closed(spans: Sequence[Span], gaps: int) -> list[Span]:
    """Disjoint spans in order, with the smallest `gaps` of the gaps between them closed."""
    smallest = sorted(range(1, len(spans)), key=lambda i: spans[i][0] - spans[i - 1][1])
    remaining = sorted(smallest[max(0, gaps) :])
    return [
        (spans[first][0], spans[after - 1][1])
        for first, after in zip([0, *remaining], [*remaining, len(spans)])
        if spans
    ]
