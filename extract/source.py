"""Interval, Page, Dataset, Source: the words every other module speaks.

Standard library only. A Source fills Datasets over Intervals; everything that knows
an API lives in `extract/sources/`, and everything else knows only what is here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any

UTC = timezone.utc


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
        """What of this interval no member of `covered` holds, oldest first."""
        left, cursor = [], self.start
        for other in union(covered):
            if other.end <= cursor or other.start >= self.end:
                continue
            if other.start > cursor:
                left.append(Interval(cursor, other.start))
            cursor = max(cursor, other.end)
        if cursor < self.end:
            left.append(Interval(cursor, self.end))
        return left

    def by_month(self) -> list[Interval]:
        """The same span cut at the first instant of every calendar month, oldest first."""
        cuts, cursor = [self.start], self.start
        while True:
            first = cursor.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
            cursor = (first + timedelta(days=32)).replace(day=1)
            if cursor >= self.end:
                break
            cuts.append(cursor)
        return [Interval(a, b) for a, b in zip(cuts, [*cuts[1:], self.end])]


def union(intervals: Iterable[Interval]) -> list[Interval]:
    """The same set of instants with touching and overlapping members merged, oldest first."""
    merged: list[Interval] = []
    for one in sorted(intervals):
        if merged and one.start <= merged[-1].end:
            merged[-1] = Interval(merged[-1].start, max(merged[-1].end, one.end))
        else:
            merged.append(one)
    return merged


@dataclass(frozen=True)
class Column:
    """One column of a raw table: its DuckDB type, and what it holds (with its unit)."""

    name: str
    type: str
    comment: str


@dataclass(frozen=True)
class Dataset:
    """One raw table, `raw.<name>`: rows about the same kind of thing from any source.

    `key` names a row. Rows that share `group` belong together and are replaced together
    (the legs of one transaction). `dimension` tables are small and have no event time.
    """

    name: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    group: tuple[str, ...] = ()
    dimension: bool = False
    moves_balances: bool = True

    @property
    def has_history(self) -> bool:
        """Rows about events, which a vendor lists by time (not snapshots, not dimensions)."""
        return self.moves_balances and not self.dimension

    @property
    def table(self) -> str:
        return f"raw.{self.name}"


@dataclass(frozen=True)
class Page:
    """One answer of an API, as it came: `body` is the wire's text, never re-serialized."""

    endpoint: str
    params: Mapping[str, Any]
    body: str
    received_at: datetime  # the vendor's own clock: the Date header, in UTC
    as_of: datetime | None = None  # snapshots only: the one instant all its pages speak of


@dataclass(frozen=True)
class Covered:
    """A dataset is complete over an interval, and why the paging that proves it ended."""

    dataset: str
    interval: Interval
    reason: str


@dataclass
class Fetched:
    """What one fetch brought: filled while it runs, landed when it is whole, or when it was stopped
    for its cost: then `covered` says what of it is whole."""

    pages: list[Page] = field(default_factory=list)
    covered: list[Covered] = field(default_factory=list)


@dataclass(frozen=True)
class Job:
    """One fetch to be made: an account of a source over an interval.

    `tail` is where reading starts so that late rows are met again (tail <= interval.start);
    `snapshot` asks for the reported balances too.
    """

    source: str
    account: str
    connection: str
    interval: Interval
    tail: datetime
    snapshot: bool = False

    def as_dict(self) -> dict[str, Any]:
        return {
            "source": self.source, "account": self.account, "connection": self.connection,
            "interval_start": iso(self.interval.start), "interval_end": iso(self.interval.end),
            "tail": iso(self.tail), "snapshot": self.snapshot,
        }

    @classmethod
    def from_dict(cls, job: Mapping[str, Any]) -> Job:
        return cls(
            source=job["source"], account=job["account"], connection=job["connection"],
            interval=Interval(job["interval_start"], job["interval_end"]),
            tail=utc(job["tail"]), snapshot=bool(job["snapshot"]),
        )


@dataclass(frozen=True)
class Rate:
    """A vendor's limit: `calls` in `seconds`.

    A token bucket that lets `burst` calls through at once; or, `strict`, a sliding window:
    never more than `calls` in any `seconds`.
    """

    calls: int
    seconds: float = 1.0
    burst: int = 1
    strict: bool = False


@dataclass(frozen=True)
class Listing:
    """What a whole reading of an account asks of `endpoint`: the rows of `dataset`, `page` a call.

    `more`: one row more is asked for, since a full last page does not say that it is the last;
    `each`: asked once for every value of this column; `of`: the pages list the values of this
    column instead of rows. Without a dataset: one call.
    """

    endpoint: str
    dataset: str = ""
    page: int = 1
    more: bool = False
    each: str = ""
    of: str = ""


@dataclass(frozen=True)
class Form:
    """How Airflow's form for a Connection of this source calls its fields.

    A field with a label is asked for and needed; `login` empty: it is hidden and not needed.
    `secrets` are further secret fields, {name in the extra: label}; `hints` are placeholders by
    field.
    """

    title: str = ""     # in the list of connection types; empty: the source's name
    host: str = ""      # the vendor's own address, the host's placeholder
    password: str = "API key"
    login: str = ""
    secrets: Mapping[str, str] = field(default_factory=dict)
    hints: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Source:
    """One API: how to fetch it, and the SQL that maps its landed pages to datasets.

    `mappings` gives, for each dataset, a SELECT over `pages(source, account, endpoint, params,
    body, received_at, as_of)` with the dataset's columns plus `page_id` and `item` (the
    record's number in the page, the same in each dataset made of it). `rates` gives the
    vendor's limit per endpoint prefix; `units` the assumed price of a call by endpoint.
    `monthly`: the API can seek in time, so long ranges are cut into months.
    `form` and `look` are for the Connection: `look(client, api)` makes one call, the cheapest that
    proves the key, and returns in words what it sees; without it the form has no working Test.
    `expected`: {endpoint: calls} that a job without a snapshot will take, told the number of rows:
    `rows(dataset, interval)` over the account, `rows(dataset, interval, column)` as a list of them
    by what the column holds; the interval may reach up to now. None: at least a call a job.
    `left(client, api)`: prepaid units left as the vendor counts them, by one call.
    `whole`: what reading everything again would ask for (ops.full_refreshes).
    """

    name: str
    documentation: str
    mappings: Mapping[str, str]
    fetch: Callable[[Any, Job], Fetched]
    connect: Callable[..., Any]
    rates: Mapping[str, Rate]
    units: Mapping[str, int] = field(default_factory=dict)
    monthly: bool = False
    expected: Callable[[Job, Callable[..., Any], datetime], Mapping[str, int]] | None = None
    whole: tuple[Listing, ...] = ()
    form: Form = Form()
    look: Callable[[Any, Any], str] | None = None
    left: Callable[[Any, Any], int] | None = None
