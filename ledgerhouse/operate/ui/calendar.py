"""Coverage by day and account: what has been read, what has not, and why.

A day is *covered* when every dataset of the account has been read over all of it; else *failed*
(the last attempt of a fetch of it failed), *gap* (later time is known, it is not), or *partly*.
What is not listed was not asked. Bounded: a year at a time, at most MOST_GAPS gaps.
"""

from __future__ import annotations

import json
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING

from extract.core.interval import iso
from ledgerhouse.warehouse.views import FETCHES

if TYPE_CHECKING:
    import duckdb

WEEKS = 53
MOST_GAPS = 200
ERROR = 300  # characters of an error that are shown

# What failed in its last attempt.
FAILURES = f"""
failures AS (
    SELECT source, account, interval_start AS start_ts, interval_end AS end_ts, run_id, ended,
           error
    FROM ({FETCHES}) WHERE state = 'failed'
)"""

# A row for each shown day that a span touches: a join with the days is ten times slower.
BY_DAY = """
SELECT *, unnest(generate_series(
    greatest(date_trunc('day', start_ts), $first::TIMESTAMP),
    least(end_ts - INTERVAL 1 MICROSECOND, $last::TIMESTAMP), INTERVAL 1 DAY)) AS day
FROM {spans} WHERE start_ts < $last::TIMESTAMP + INTERVAL 1 DAY AND end_ts > $first::TIMESTAMP"""

# One row a day and account that anything is known of; a day is known as far as its least dataset.
DAYS = f"""
WITH {FAILURES}, expected AS (
    SELECT source, account, count(DISTINCT dataset) AS datasets FROM ops.coverage
    WHERE dataset NOT IN ('balances', 'positions') GROUP BY ALL
), read AS (
    SELECT source, account, dataset, day,
           sum(epoch_us(least(end_ts, day + INTERVAL 1 DAY)) - epoch_us(greatest(start_ts, day)))
               AS micros,
           max(least(end_ts, day + INTERVAL 1 DAY)) AS reached,
           arg_max(reason, read_at) AS reason, arg_max(run_id, read_at) AS run_id
    FROM ({BY_DAY.format(spans="ops.coverage")} AND dataset NOT IN ('balances', 'positions')) GROUP BY ALL
), known AS (
    SELECT r.source, r.account, r.day,
           CASE WHEN count(*) < any_value(e.datasets) THEN 0 ELSE min(micros) END AS micros,
           min(reached) AS reached, arg_min(reason, micros) AS reason,
           arg_min(run_id, micros) AS run_id
    FROM read r JOIN expected e ON e.source = r.source AND e.account = r.account GROUP BY ALL
), holes AS (
    SELECT source, account, day, string_agg(DISTINCT dataset, ', ' ORDER BY dataset) AS datasets
    FROM ({BY_DAY.format(spans="ops.gaps")}) GROUP BY ALL
), failed AS (
    SELECT source, account, day, arg_max(run_id, ended) AS run_id, arg_max(error, ended) AS error
    FROM ({BY_DAY.format(spans="failures")}) GROUP BY ALL
)
SELECT source, account, day::DATE AS day, k.micros, k.reached, k.reason, k.run_id, h.datasets,
       f.run_id, left(f.error, {ERROR})
FROM known k FULL JOIN holes h USING (source, account, day)
FULL JOIN failed f USING (source, account, day)
ORDER BY source, account, day
"""

# A hole of an account is one gap, however many datasets have it.
GAPS = f"""
WITH {FAILURES}, whole AS (
    SELECT source, account, start_ts, end_ts,
           string_agg(dataset, ', ' ORDER BY dataset) AS datasets
    FROM ops.gaps GROUP BY ALL
), newest AS (
    SELECT *, count(*) OVER () AS total FROM whole
    ORDER BY start_ts DESC, source, account, end_ts LIMIT {MOST_GAPS}
)
SELECT g.source, g.account, g.datasets, g.start_ts, g.end_ts, any_value(g.total),
       arg_max(f.run_id, f.ended)
FROM newest g LEFT JOIN failures f ON f.source = g.source AND f.account = g.account
    AND f.start_ts < g.end_ts AND f.end_ts > g.start_ts
GROUP BY ALL ORDER BY g.start_ts DESC, g.source, g.account, g.end_ts
"""

FULL_DAY = 86_400_000_000


def coverage(con: duckdb.DuckDBPyConnection, year: int | None = None) -> dict:
    """{first, last, years, accounts: [{source, account, since, until, days}], notes, gaps, …}.

    `days` are [date, state, covered per mille, index of its note] of the year, or of the WEEKS
    weeks that end with the newest week known. A note says why: the run that read the day and the
    reason its paging ended, the datasets with a gap, the run that failed and its error.
    """
    spans = con.execute("FROM ops.reached ORDER BY source, account").fetchall()
    ((oldest, newest),) = con.execute(
        "SELECT min(start_ts)::DATE, (max(end_ts) - INTERVAL 1 MICROSECOND)::DATE "
        "FROM ops.coverage WHERE dataset NOT IN ('balances', 'positions')"
    ).fetchall()
    first, last = _span(newest, year)
    days: dict[tuple, list] = {}
    notes: dict[str, int] = {}  # by their JSON: most days share theirs
    for source, account, day, *columns in con.execute(
        DAYS, {"first": str(first), "last": str(last)}
    ).fetchall():
        state, share, note = _day(*columns)
        key = json.dumps({name: value for name, value in note.items() if value})
        days.setdefault((source, account), []).append(
            [str(day), state, share, notes.setdefault(key, len(notes))]
        )
    read_spans = {(s, a): (since, until) for s, a, since, _, until, _ in spans}
    keys = list(dict.fromkeys([*read_spans, *days]))
    gaps = con.execute(GAPS).fetchall()
    return {
        "first": str(first),
        "last": str(last),
        "years": [*range(oldest.year, newest.year + 1)] if newest else [],
        "accounts": [
            {
                "source": s,
                "account": a,
                "days": days.get((s, a), []),
                "since": when(read_spans.get((s, a), (None, None))[0]),
                "until": when(read_spans.get((s, a), (None, None))[1]),
            }
            for s, a in keys
        ],
        "notes": [json.loads(note) for note in notes],
        "gaps": [
            {
                "source": s,
                "account": a,
                "datasets": d,
                "start": when(b),
                "end": when(e),
                "failed_run": run,
            }
            for s, a, d, b, e, _, run in gaps
        ],
        "gaps_total": gaps[0][5] if gaps else 0,
    }


def _span(newest: date | None, year: int | None) -> tuple[date, date]:
    """The days shown, both included: whole weeks from a Monday, or the calendar year."""
    if year is not None:
        return date(year, 1, 1), date(year, 12, 31)
    last = newest or date.today()
    monday = last - timedelta(days=last.weekday())
    return monday - timedelta(weeks=WEEKS - 1), last


def _day(micros, reached, reason, run_id, holes, failed_run, error) -> tuple[str, int, dict]:
    """State, covered per mille, and the note."""
    micros = micros or 0
    note = {"failed": failed_run, "error": error, "gap": holes}
    if micros:
        note |= {"reason": reason, "run": run_id}
    if micros >= FULL_DAY:
        return "covered", 1000, note
    note["reached"] = when(reached)
    state = "failed" if failed_run else "gap" if holes else "partly" if micros else "none"
    return state, micros * 1000 // FULL_DAY, note


def when(moment: datetime | None) -> str | None:
    """A time as ISO text in UTC, None as None."""
    return iso(moment) if moment else None
