"""How far a check looks: an interval, or the days of it that were touched."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, time, timedelta

from extract.core.interval import UTC, Interval


@dataclass(frozen=True)
class Bounds:
    """SQL conditions that keep a query within an interval, and within the days it touches.

    Where `spans` are given, disjoint parts of the interval, only they are looked at: 20 late days
    of ten years are 20 days.
    """

    interval: Interval
    spans: tuple[Interval, ...] = ()

    def __str__(self) -> str:
        return self.of("ts")

    @property
    def scattered(self) -> bool:
        """Each look at a table would pass over all that lies between the spans."""
        return len(self.spans) > 1

    @property
    def whole_days(self) -> bool:
        return all(
            edge.astimezone(UTC).time() == time.min
            for span in self.spans
            for edge in (span.start, span.end)
        )

    def query(self, table: str) -> str:
        """The rows of a table, range by range: zone maps help a range, not an OR of ranges."""

        def where(part: Bounds) -> str:
            return part.days("date") if table == "curated.daily_flows" else str(part)

        parts = [Bounds(span) for span in self.spans] if self.scattered else [self]
        return " UNION ALL ".join(f"SELECT * FROM {table} WHERE {where(part)}" for part in parts)

    def rows(self, table: str) -> str:
        """The same for another suite's query: those kept for the table, where they are."""
        return f"(FROM {kept_name(table)})" if self.scattered else f"({self.query(table)})"

    def of(self, column: str, slack: str = "INTERVAL 0 SECOND") -> str:
        """A TIMESTAMP column is within them, or `slack` around."""
        return self._within(
            column,
            lambda span: (f"{literal(span.start)} - {slack}", f"{literal(span.end)} + {slack}"),
        )

    def days(self, column: str, kind: str = "DATE") -> str:
        """A column is on a day of theirs, also on one they have a part of."""

        def ends(span: Interval) -> tuple[str, str]:
            last = (span.end - timedelta(microseconds=1)).date()
            return f"{kind} '{span.start.date()}'", f"{kind} '{last + timedelta(days=1)}'"

        return self._within(column, ends)

    def _within(self, column: str, ends: Callable[[Interval], tuple[str, str]]) -> str:
        def between(span: Interval) -> str:
            start, end = ends(span)
            return f"{column} >= {start} AND {column} < {end}"

        if not self.scattered:
            return between(self.interval)
        # The whole first: it alone lets zone maps skip what lies outside.
        return f"({between(self.interval)} AND ({' OR '.join(map(between, self.spans))}))"


def literal(moment: datetime) -> str:
    return f"TIMESTAMP '{moment.astimezone(UTC).replace(tzinfo=None)}'"


def kept_name(table: str) -> str:
    """The temporary table of the rows that are kept of a table."""
    return "checked_" + table.replace(".", "_")
