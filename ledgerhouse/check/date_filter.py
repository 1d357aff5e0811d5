"""Date filter of check queries: the interval of a run, or the days of it that were touched."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, time, timedelta

from extract.core.interval import UTC, Interval


@dataclass(frozen=True)
class DateFilter:
    """SQL conditions that keep a query within an interval, and within the days it touches.

    Where `spans` are given, disjoint parts of the interval, only they are read: 20 late days of
    ten years are 20 days.
    """

    interval: Interval
    spans: tuple[Interval, ...] = ()

    @property
    def scattered(self) -> bool:
        """Whether there is time between the spans, which each query of a table would pass over."""
        return len(self.spans) > 1

    @property
    def whole_days(self) -> bool:
        """Whether every span begins and ends at midnight."""
        return all(
            edge.astimezone(UTC).time() == time.min
            for span in self.spans
            for edge in (span.start, span.end)
        )

    def query(self, table: str) -> str:
        """SELECT of a table's rows, range by range: zone maps help a range, not an OR of ranges."""

        def where(part: DateFilter) -> str:
            on_days = table == "curated.daily_flows"
            return part.within_days("date") if on_days else part.within("ts")

        parts = [DateFilter(span) for span in self.spans] if self.scattered else [self]
        return " UNION ALL ".join(f"SELECT * FROM {table} WHERE {where(part)}" for part in parts)

    def rows(self, table: str) -> str:
        """The same rows as a subquery; where days are scattered, from the table's temporary copy."""
        return f"(FROM {temporary_table(table)})" if self.scattered else f"({self.query(table)})"

    def within(self, column: str, slack: str = "INTERVAL 0 SECOND") -> str:
        """Condition: a TIMESTAMP column lies within the interval or its spans, or `slack` around."""
        return self._condition(
            column,
            lambda span: (f"{literal(span.start)} - {slack}", f"{literal(span.end)} + {slack}"),
        )

    def within_days(self, column: str, kind: str = "DATE") -> str:
        """Condition: a column lies on a day of the interval or its spans, partly covered days too."""

        def ends(span: Interval) -> tuple[str, str]:
            last = (span.end - timedelta(microseconds=1)).date()
            return f"{kind} '{span.start.date()}'", f"{kind} '{last + timedelta(days=1)}'"

        return self._condition(column, ends)

    def _condition(self, column: str, ends: Callable[[Interval], tuple[str, str]]) -> str:
        def between(span: Interval) -> str:
            start, end = ends(span)
            return f"{column} >= {start} AND {column} < {end}"

        if not self.scattered:
            return between(self.interval)
        # The whole first: it alone lets zone maps skip what lies outside.
        return f"({between(self.interval)} AND ({' OR '.join(map(between, self.spans))}))"


def literal(moment: datetime) -> str:
    """A time as a SQL literal, in UTC."""
    return f"TIMESTAMP '{moment.astimezone(UTC).replace(tzinfo=None)}'"


def temporary_table(table: str) -> str:
    """Name of the temporary table with the rows of `table` that a run checks."""
    return "checked_" + table.replace(".", "_")
