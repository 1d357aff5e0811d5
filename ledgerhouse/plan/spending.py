"""What a full refresh asks for (ops.listings) and what is allowed (ops.budgets), as of a plan."""

from __future__ import annotations

from collections.abc import Iterable

from extract.core.source import Source
from ledgerhouse.warehouse.transaction import transaction


def record(con, sources: Iterable[Source], budgets: Iterable[tuple[str, str, str, int]]) -> None:
    """What the sources list and what is allowed of them (source, measure, period, allowed), now."""
    listed = [
        (
            source.name,
            one.endpoint,
            one.dataset,
            one.page,
            int(one.probes_past_end),
            one.per_column,
            one.lists_column,
        )
        for source in sources
        for one in source.whole
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
