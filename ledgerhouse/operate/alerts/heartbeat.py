"""The heartbeat: whether syncs still come, for a watcher outside.

Alerts are sent by tasks, and Airflow's deadlines by the scheduler: where the scheduler stands still
nobody of ours can say so. Two things can: a command that something else runs (`airflow warehouse
health`, by the books alone), and a watcher elsewhere that misses its ping (healthchecks.io and its
like): while syncs come, the last task of every run asks the address of the Connection
`alerts_heartbeat`.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from extract.core.interval import utc

if TYPE_CHECKING:
    import duckdb


def newest_read(con: duckdb.DuckDBPyConnection) -> datetime | None:
    """Up to when any account is read, in warehouse or books; None: nothing was ever read.

    Of any: an account whose key is refused is an alert, and no sign that no sync comes.
    """
    ((until,),) = con.execute(
        "SELECT max(end_ts) FROM ops.coverage WHERE dataset NOT IN ('balances', 'positions')"
    ).fetchall()
    return None if until is None else utc(until)


def is_alive(newest: datetime | None, stale_after: timedelta, now: datetime) -> bool:
    """Whether a sync has come within `stale_after_hours` of [alerts]."""
    return newest is not None and now - newest <= stale_after
