"""Recording of ops.listings (what a full refresh asks for) and ops.budgets (what is allowed)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from extract.core.source import Source
from ledgerhouse.warehouse.transaction import transaction

if TYPE_CHECKING:
    import duckdb


def record(
    con: duckdb.DuckDBPyConnection,
    sources: Iterable[Source],
    budgets: Iterable[tuple[str, str, str, int]],
) -> None:
    """What the sources list and what is allowed of them (source, measure, period, allowed), now."""
    listed = [
        (
            source.name,
            call.endpoint,
            call.dataset,
            call.page,
            int(call.probes_past_end),
            call.per_column,
            call.lists_column,
        )
        for source in sources
        for call in source.whole
    ]
    with transaction(con):
        for table, columns, rows in (
            ("ops.listings", "source, endpoint, dataset, page, more, asked_by, listed", listed),
            ("ops.budgets", "source, measure, period, allowed", list(budgets)),
        ):
            con.execute(f"DELETE FROM {table}")
            for row in rows:
                con.execute(
                    f"INSERT INTO {table} ({columns}) VALUES ({', '.join('?' * len(row))})", row
                )
