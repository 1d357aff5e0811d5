"""Estimate of what runs will cost, before they run: from coverage, and from how dense rows were.

The jobs are those a run would plan (`coverage.jobs_for_holes`); what a job costs, its source says
(`Source.expected`) from the number of rows it will read. Where time is covered, the rows are
known and counted, by the hour; elsewhere as many are assumed as the account had per covered hour,
or, of an account that was never read, the mean of its source's accounts. Where no account was
read, one page a walk: at least so many calls.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import accumulate
from typing import TYPE_CHECKING

from extract.core.interval import Interval, union, utc
from extract.core.source import Job, Source
from ledgerhouse.config import Account
from ledgerhouse.plan.coverage import (
    LOOKBACK,
    covered,
    events,
    jobs_for_holes,
    known_states,
    learned_lookback,
    oldest_pending,
    unsettled,
    with_parts,
)

if TYPE_CHECKING:
    import duckdb

HOUR = timedelta(hours=1)
EVER = utc("1970-02-01")


@dataclass(frozen=True)
class Cost:
    """Calls and units of one source over one run."""

    calls: int = 0
    units: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.calls + other.calls, self.units + other.units)


@dataclass(frozen=True)
class Counts:
    """Rows by the hour: how many there are before an instant, an hour's being spread evenly."""

    hours: Sequence[datetime]  # ascending
    before: Sequence[int]  # rows before each, and all rows at the end

    def until(self, moment: datetime) -> float:
        """Rows before the moment."""
        place = bisect_right(self.hours, moment) - 1
        if place < 0:
            return 0.0
        part = min((moment - self.hours[place]) / HOUR, 1.0)
        return self.before[place] + part * (self.before[place + 1] - self.before[place])

    def within(self, interval: Interval) -> float:
        """Rows in the interval."""
        return self.until(interval.end) - self.until(interval.start)


@dataclass
class Known:
    """What the books, or the warehouse, know of the accounts; complete once `read` has returned."""

    covered: dict[tuple[str, str, str], list[Interval]] = field(default_factory=dict)
    unsettled: dict[tuple[str, str], list[Interval]] = field(default_factory=dict)
    lookback: dict[tuple[str, str], timedelta] = field(default_factory=dict)
    pending: dict[tuple[str, str], datetime | None] = field(default_factory=dict)
    states: dict[tuple[str, str], dict[str, str]] = field(default_factory=dict)
    counts: dict[tuple, dict[str | None, Counts]] = field(default_factory=dict)
    guessed: set[tuple[str, str]] = field(default_factory=set)  # accounts never read
    con: duckdb.DuckDBPyConnection | None = None

    @classmethod
    def read(
        cls,
        con: duckdb.DuckDBPyConnection | None,
        sources: Mapping[str, Source],
        accounts: Iterable[Account],
        now: datetime,
    ) -> Known:
        """Everything an estimate may ask for, in a few queries an account; `con` None: nothing."""
        import duckdb

        known = cls(con=con)
        for account in accounts:
            source, key = sources[account.source], (account.source, account.account)
            for dataset in events(source):
                known.covered[*key, dataset] = covered(con, *key, dataset) if con else []
            known.lookback[key] = (
                learned_lookback(con, source, account.account, now) if con else LOOKBACK
            )
            known.unsettled[key] = (
                [
                    interval
                    for dataset in events(source)
                    for interval in unsettled(con, *key, dataset, EVER, known.lookback[key])
                ]
                if con
                else []
            )
            known.pending[key] = oldest_pending(con, source, account.account) if con else None
            known.states[key] = {}
            with suppress(duckdb.CatalogException):  # in books of an older version: none is known
                if con:
                    known.states[key] = known_states(
                        con, source, account.account, known.lookback[key]
                    )
            if source.expected:  # so that it asks now for what it will ask for
                span = Interval(now - HOUR, now)
                for job in jobs_for_holes(source, account, [span], [], LOOKBACK):
                    source.expected(job, known.rows(account), now)
        known.con = None
        return known

    def rows(self, account: Account):
        """The function a source asks: rows of a dataset in an interval (Source.expected)."""
        key = (account.source, account.account)

        def rows(dataset: str, interval: Interval, column: str | None = None):
            self._count(*key, dataset, column)
            whole = self.covered.get((*key, dataset)) or []
            if not whole:
                self.guessed.add(key)
                mean = self._mean(account.source, dataset) * interval_seconds([interval])
                return [mean] if column else mean
            seconds = interval_seconds(whole)
            unknown = interval_seconds(interval.minus(whole))
            parts = [part for span in whole if (part := _common(span, interval))]
            expected = [
                sum(counts.within(part) for part in parts)
                + unknown * sum(counts.within(span) for span in whole) / seconds
                for counts in self.counts[*key, dataset, column].values()
            ]
            return expected if column else sum(expected)

        return rows

    def _count(self, source: str, account: str, dataset: str, column: str | None) -> None:
        if self.con is None or (source, account, dataset, column) in self.counts:
            return
        by: dict[str | None, list[tuple[datetime, int]]] = {}
        for value, hour, count in self.con.execute(
            f"SELECT {column or 'NULL'}, date_trunc('hour', ts), count(*) FROM raw.{dataset} "
            "WHERE source = ? AND account = ? GROUP BY ALL ORDER BY 2",
            [source, account],
        ).fetchall():
            by.setdefault(value, []).append((utc(hour), count))
        if column == "wallet":  # one without a row is asked for all the same
            for (value,) in self.con.execute(
                "SELECT DISTINCT wallet FROM raw.balances WHERE source = ? AND account = ?",
                [source, account],
            ).fetchall():
                by.setdefault(value, [])
        self.counts[source, account, dataset, column] = {
            value: Counts(
                [hour for hour, _ in found], [0, *accumulate(count for _, count in found)]
            )
            for value, found in by.items()
        }

    def _mean(self, source: str, dataset: str) -> float:
        """Rows a second of the source's accounts that were read; 0 where none was."""
        read = [
            (key, whole)
            for key, whole in self.covered.items()
            if key[0] == source and key[2] == dataset and whole
        ]
        rows = 0.0
        for key, whole in read:
            self._count(*key, None)
            rows += sum(
                counts.within(span)
                for counts in self.counts.get((*key, None), {}).values()
                for span in whole
            )
        seconds = sum(interval_seconds(whole) for _, whole in read)
        return rows / seconds if seconds else 0.0


def interval_seconds(intervals: Iterable[Interval]) -> float:
    """How long the intervals are together."""
    return sum((i.end - i.start).total_seconds() for i in intervals)


def _common(first: Interval, second: Interval) -> Interval | None:
    """The part that both have."""
    start, end = max(first.start, second.start), min(first.end, second.end)
    return Interval(start, end) if start < end else None


def simulate(
    known: Known,
    sources: Mapping[str, Source],
    accounts: Iterable[Account],
    intervals: Sequence[Interval],
    now: datetime,
    *,
    refetch: bool = False,
    prices: Mapping[str, Mapping[str, int]] | None = None,
) -> list[dict[str, Cost]]:
    """What each of the runs over `intervals`, made in this order, costs: {source: Cost} a run.

    `prices`: units by source and endpoint, else the sources' own. A source without a call to make
    is not in a run's dict.
    """
    runs: list[dict[str, Cost]] = [{} for _ in intervals]
    for number, job in planned(known, sources, accounts, intervals, now, refetch=refetch):
        run, (cost,) = runs[number], priced(known, sources, [job], now, prices=prices).values()
        run[job.source] = run.get(job.source, Cost()) + cost
    return runs


def planned(
    known: Known,
    sources: Mapping[str, Source],
    accounts: Iterable[Account],
    intervals: Sequence[Interval],
    now: datetime,
    *,
    refetch: bool = False,
) -> Iterator[tuple[int, Job]]:
    """(number of the run, job): the jobs that runs over `intervals`, one after the other, plan."""
    for account in accounts:
        source, key = sources[account.source], (account.source, account.account)
        whole = {d: union(known.covered.get((*key, d), [])) for d in events(source)}
        fresh, back = list(known.unsettled.get(key, [])), known.lookback.get(key, LOOKBACK)
        for number, interval in enumerate(intervals):
            holes = (
                [interval]
                if refetch
                else union(hole for spans in whole.values() for hole in interval.minus(spans))
            )
            if not holes:
                continue
            near = [interval for interval in fresh if interval.end >= holes[0].start - back]
            jobs = jobs_for_holes(source, account, holes, near, back, known.pending.get(key))
            states = {} if refetch else known.states.get(key, {})
            for job in with_parts(jobs, states, {}, whole.get("exchanges_ledger")):
                yield number, job
                read = Interval(job.read_from, job.interval.end)
                whole = {dataset: union([*spans, read]) for dataset, spans in whole.items()}
                if now < read.end + back:
                    fresh.append(read)


def priced(
    known: Known,
    sources: Mapping[str, Source],
    jobs: Iterable[Job],
    now: datetime,
    *,
    prices: Mapping[str, Mapping[str, int]] | None = None,
) -> dict[tuple[str, str], Cost]:
    """What planned jobs will cost, snapshots too, by source and account."""
    costs: dict[tuple[str, str], Cost] = {}
    for job in jobs:
        source = sources[job.source]
        units = (prices or {}).get(source.name, source.units)
        rows = known.rows(Account(job.source, job.account, job.connection))
        calls = dict(source.expected(job, rows, now)) if source.expected else {"": 1}
        if job.snapshot:
            calls |= {call.endpoint: 1 for call in source.whole if not call.dataset}
        key = (job.source, job.account)
        costs[key] = costs.get(key, Cost()) + Cost(
            sum(calls.values()), sum(units.get(e, 0) * count for e, count in calls.items())
        )
    return costs


def total(runs: Iterable[Mapping[str, Cost]]) -> dict[str, Cost]:
    """All runs together, by source."""
    costs: dict[str, Cost] = {}
    for run in runs:
        for source, cost in run.items():
            costs[source] = costs.get(source, Cost()) + cost
    return costs
