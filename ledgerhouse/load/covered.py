"""Which time of an account's ledger is read whole, for one wallet of it."""

from __future__ import annotations

from bisect import bisect_right
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING

from extract.core.interval import joined

if TYPE_CHECKING:
    import duckdb

DATASET = "exchanges_ledger"


class Covered:
    """Coverage of an account's ledger as the warehouse has it when it is first asked."""

    def __init__(self, con: duckdb.DuckDBPyConnection, source: str, account: str):
        self.con, self.who = con, [source, account, DATASET]

    @cached_property
    def spans(self) -> list[tuple[datetime, datetime]]:
        return joined(
            self.con.execute(
                "SELECT start_ts, end_ts FROM ops.coverage "
                "WHERE (source, account, dataset) = (?, ?, ?) ORDER BY ALL",
                self.who,
            ).fetchall()
        )

    @cached_property
    def unread(self) -> dict[str, list[tuple[datetime, datetime]]]:
        """By wallet, what could not be read."""
        found: dict[str, list[tuple[datetime, datetime]]] = {}
        for part, start, end in self.con.execute(
            "SELECT part, start_ts, end_ts FROM ops.unread_parts "
            "WHERE (source, account, dataset) = (?, ?, ?)",
            self.who,
        ).fetchall():
            found.setdefault(part, []).append((start, end))
        return found

    def is_whole(self, wallet: str, after: datetime, ts: datetime) -> bool:
        """Whether all of a wallet is read from one instant to a later one, both included."""
        place = bisect_right(self.spans, after, key=lambda span: span[0])
        if not place or ts >= self.spans[place - 1][1]:
            return False
        return not any(start <= ts and end > after for start, end in self.unread.get(wallet, ()))
