"""The budget: how many calls and units a source may take a day and a month, kept before each call.

    [budget.debank]          in accounts.toml; each line is optional
    units_per_day = 20000
    units_per_month = 500000
    calls_per_day = 2000
    calls_per_month = 50000

Days and months are UTC, by our own clock, the one of ops.api_calls. A call is reserved in the
ledger before it is sent, and settled once it is written in the call log; a call that would pass a
limit raises BudgetReached and is not sent. The ledger is one SQLite file that all fetches share
(a fetch never opens the warehouse). What a killed fetch had reserved stays spent unless the call
log says otherwise; each plan counts the ledger again from ops.api_calls and the call logs, so
that a lost one is no loss, and a damaged one is put aside (see ledgerhouse.plan.ledger_file).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from extract.core.errors import BudgetReached
from extract.core.interval import UTC, first_of_month, iso, utc
from ledgerhouse.config import Limit
from ledgerhouse.plan.ledger_file import LedgerFile

if TYPE_CHECKING:
    import duckdb

LEDGER = "budget.sqlite"
Spent = tuple[date, int, int]  # a UTC day: calls, units
# (source, first day, ids of open reservations) → what is written down: by day, and which of the ids
Count = Callable[[str, date, list[str]], tuple[list[Spent], set[str]]]


def _opens(at: datetime) -> dict[str, date]:
    """First days of the day and the month that hold the moment."""
    return {"day": at.date(), "month": first_of_month(at.date())}


def _opens_again(period: str, at: datetime) -> datetime:
    """When the next period begins."""
    first = _opens(at)[period]
    following = first + timedelta(days=1 if period == "day" else 31)
    if period == "month":
        following = first_of_month(following)
    return utc(datetime(following.year, following.month, following.day))


class Ledger:
    """What was spent of one source under its limits, in a file that processes and threads share.

    `now` is the clock; tests set it. `count` counts again what was spent where the file turns out
    to be damaged in the middle of a fetch; without it the fetch fails, and is tried again.
    """

    def __init__(
        self,
        var: Path,
        source: str,
        limits: Iterable[Limit],
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        count: Count | None = None,
    ):
        self.source, self._now = source, now
        self.limits = [limit for limit in limits if limit.source == source]
        again = None if count is None else lambda con: self._count_again(con, count)
        self._file = LedgerFile(Path(var) / LEDGER, again)

    def reserve(self, units: int) -> tuple[str, datetime]:
        """(id, time) of a call that may be sent now at this price; BudgetReached where none may."""

        def take(con: sqlite3.Connection) -> tuple[str, datetime]:
            at = self._now()
            spent = self._spent(con, at)
            for limit in self.limits:
                more = units if limit.measure == "units" else 1
                used = spent[limit.period][limit.measure]
                if used + more > limit.allowed:
                    raise self._reached(limit, used, units, at)
            call_id = uuid4().hex
            con.execute(
                "INSERT INTO reserved VALUES (?, ?, ?, ?)", (call_id, self.source, iso(at), units)
            )
            self._add(con, at, 1, units)
            return call_id, at

        return self._file.turn(take)

    def settle(self, call_id: str, units: int) -> None:
        """The call is over and written down, at this many units."""

        def correct(con: sqlite3.Connection) -> None:
            reserved = con.execute(
                "SELECT at, units FROM reserved WHERE call_id = ?", (call_id,)
            ).fetchone()
            if reserved:  # otherwise a recount has taken it from the call log meanwhile
                con.execute("DELETE FROM reserved WHERE call_id = ?", (call_id,))
                self._add(con, utc(reserved[0]), 0, units - reserved[1])

        self._file.turn(correct)

    def remaining(self) -> dict[tuple[str, str], int]:
        """What may still be spent, by (measure, period), of what has a limit."""
        spent = self._file.turn(lambda con: self._spent(con, self._now()))
        return {
            (limit.measure, limit.period): limit.allowed - spent[limit.period][limit.measure]
            for limit in self.limits
        }

    def recount(self, count: Count) -> None:
        """Take from what is written down what was spent; open reservations it lacks stay spent."""
        self._file.turn(lambda con: self._count(con, count))

    def _count(self, con: sqlite3.Connection, count: Count) -> None:
        opens = _opens(self._now())
        first = min(opens.values())
        con.execute("DELETE FROM reserved WHERE at < ?", (str(first),))
        waiting = dict(
            con.execute(
                "SELECT call_id, at FROM reserved WHERE source = ?", (self.source,)
            ).fetchall()
        )
        # Nobody reserves or settles now: a call in flight is in the log, or still reserved.
        spent, logged = count(self.source, first, list(waiting))
        con.execute("DELETE FROM totals WHERE source = ?", (self.source,))
        con.executemany(
            "DELETE FROM reserved WHERE call_id = ?", [(call_id,) for call_id in logged]
        )
        for day, calls, units in spent:
            self._add(con, utc(datetime(day.year, day.month, day.day)), calls, units)
        for moment, units in con.execute(
            "SELECT at, units FROM reserved WHERE source = ?", (self.source,)
        ).fetchall():
            self._add(con, utc(moment), 1, units)
        con.execute("INSERT OR REPLACE INTO counted VALUES (?, ?)", (self.source, str(first)))

    def _count_again(self, con: sqlite3.Connection, count: Count) -> None:
        if not self._is_counted(con):  # otherwise another fetch of the source has done it
            self._count(con, count)

    @property
    def is_counted(self) -> bool:
        """Whether it was ever counted in this month: a new file was not."""
        return self._file.turn(self._is_counted)

    def _is_counted(self, con: sqlite3.Connection) -> bool:
        return (
            con.execute(
                "SELECT 1 FROM counted WHERE source = ? AND month = ?",
                (self.source, str(_opens(self._now())["month"])),
            ).fetchone()
            is not None
        )

    def close(self) -> None:
        """Close the file; the next call opens it again."""
        self._file.close()

    def _spent(self, con: sqlite3.Connection, at: datetime) -> dict[str, dict[str, int]]:
        spent = {}
        for period, opens in _opens(at).items():
            row = con.execute(
                "SELECT calls, units FROM totals WHERE source = ? AND period = ? AND opens = ?",
                (self.source, period, str(opens)),
            ).fetchone()
            spent[period] = dict(zip(("calls", "units"), row or (0, 0)))
        return spent

    def _add(self, con: sqlite3.Connection, at: datetime, calls: int, units: int) -> None:
        for period, opens in _opens(at).items():
            con.execute(
                "INSERT INTO totals VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
                "calls = calls + excluded.calls, units = units + excluded.units",
                (self.source, period, str(opens), calls, units),
            )

    def _reached(self, limit: Limit, used: int, units: int, at: datetime) -> BudgetReached:
        price = f" and the next call costs {units:,}" if limit.measure == "units" else ""
        return BudgetReached(
            f"the budget of {limit.source} allows {limit.allowed:,} {limit.measure} a "
            f"{limit.period}: {used:,} are spent{price}, so it was not sent. The budget opens "
            f"again at {iso(_opens_again(limit.period, at))}. What was read before is kept, and the next "
            f"run goes on from there. To allow more, raise {limit.measure}_per_{limit.period} "
            f"in [budget.{limit.source}] of accounts.toml",
            limit.source,
            limit.measure,
            limit.period,
            limit.allowed,
            used,
            _opens_again(limit.period, at),
        )


def tallied(calls: Iterable[dict], source: str, first: date) -> tuple[list[Spent], set[str]]:
    """Calls of a call log since a day: what they spent by day, and their ids. Each counts once."""
    days: dict[date, list[int]] = {}
    seen: set[str] = set()
    for call in calls:
        day = utc(call["called_at"]).date()
        if call["source"] != source or day < first or call["call_id"] in seen:
            continue
        seen.add(call["call_id"])
        sums = days.setdefault(day, [0, 0])
        sums[0] += 1
        sums[1] += call["units"]
    return [(day, calls, units) for day, (calls, units) in days.items()], seen


def from_logs(read: Callable[[date], Iterable[dict]]) -> Count:
    """Counts the call logs alone; `read(first day)` gives their calls (call_log.logged)."""

    def count(source: str, first: date, waiting: list[str]):
        spent, seen = tallied(read(first), source, first)
        return spent, seen.intersection(waiting)

    return count


def from_warehouse(con: duckdb.DuckDBPyConnection, read: Callable[[], Iterable[dict]]) -> Count:
    """Counts ops.api_calls and what is not loaded yet; `read()` gives the calls of the inbox."""

    def known(ids: Sequence[str]) -> set[str]:
        return (
            {
                call_id
                for (call_id,) in con.execute(
                    "SELECT call_id FROM ops.api_calls WHERE call_id IN (SELECT unnest(?))",
                    [list(ids)],
                ).fetchall()
            }
            if ids
            else set()
        )

    def count(source: str, first: date, waiting: list[str]):
        spent = con.execute(
            "SELECT called_at::DATE, count(*), sum(units)::BIGINT FROM ops.api_calls "
            "WHERE source = ? AND called_at >= ? GROUP BY 1",
            [source, first],
        ).fetchall()
        fresh = list(read())
        loaded = known([call["call_id"] for call in fresh])
        more, seen = tallied((c for c in fresh if c["call_id"] not in loaded), source, first)
        return spent + more, (seen | known(waiting)).intersection(waiting)

    return count


def open_ledgers(
    var: Path, limits: Sequence[Limit], sources: Iterable[str], count: Count | None = None
) -> list[Ledger]:
    """A ledger for each of the sources that has a limit; `count` as Ledger has it."""
    return [
        Ledger(var, source, limits, count=count)
        for source in sorted(set(sources))
        if any(limit.source == source for limit in limits)
    ]
