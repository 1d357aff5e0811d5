"""What moved before an instant, read by the day where the day is whole.

curated.daily_flows has a row for every day, account and token that curated.tx_unified has legs of:
ten years of 10M legs are 200,000 of them. Summed from there, an account costs the same at every
length of its history; only legs of odd days are read one by one: of the day that an instant falls
into, and of those that a sum does not say enough of.

    odd_legs(con, odd, params)     the legs of the odd days, as a subquery; odd_days holds the days
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from extract.core.interval import closed, joined

if TYPE_CHECKING:
    import duckdb

DAY = timedelta(days=1)
MAX_SPANS = 32  # of days that are read; past them the smallest gaps are read too
# Of what `odd` selects, by name: anti join it with daily_flows, for the days that are whole.
ODD_DAYS = "temp.odd_days"


def odd_legs(con: duckdb.DuckDBPyConnection, odd: str, params: Mapping[str, Any]) -> str:
    """The rows of curated.tx_unified of the days that `odd` selects, as a subquery in parentheses.

    `odd` is a SELECT of source, account, token, date from curated.daily_flows; its rows are in
    ODD_DAYS until the next call. Each span of days is read by its own SELECT: zone maps help a
    range, not an OR of ranges.
    """
    con.execute(f"CREATE OR REPLACE TEMP TABLE odd_days AS {odd}", params)
    days = con.execute(f"SELECT DISTINCT date FROM {ODD_DAYS}").fetchall()
    spans = joined((day, day + DAY) for (day,) in days)
    each = [
        f"SELECT * FROM curated.tx_unified WHERE ts >= TIMESTAMP '{start}' AND ts < TIMESTAMP '{end}'"
        for start, end in closed(spans, len(spans) - MAX_SPANS)
    ]
    rows = " UNION ALL ".join(each or ["SELECT * FROM curated.tx_unified WHERE false"])
    return (
        f"(SELECT t.* FROM ({rows}) t SEMI JOIN {ODD_DAYS} o ON o.source = t.source "
        "AND o.account = t.account AND o.token = t.token AND o.date = CAST(t.ts AS DATE))"
    )
