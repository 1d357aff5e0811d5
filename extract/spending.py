"""What was spent, what a full refresh would have cost instead, and what is allowed: ops.spending,
ops.full_refreshes, ops.budgets, ops.account_units.

The counterfactual is stated, and computed from what the warehouse knows: somebody without coverage
asks, at every sync that we made, for the whole history again, of the same accounts, by the same
endpoints and page sizes as ours (`Source.whole`), over the rows that were known by then. No
backfill is held against it, and no retry: the savings told are the least there were.
"""

from __future__ import annotations

from collections.abc import Iterable

from extract.core.source import Source
from ledgerhouse.warehouse.transaction import transaction


def record(con, sources: Iterable[Source], budgets: Iterable[tuple[str, str, str, int]]) -> None:
    """What the sources list and what is allowed of them (source, measure, period, allowed), now."""
    listed = [(source.name, one.endpoint, one.dataset, one.page, int(one.more), one.each, one.of)
              for source in sources for one in source.whole]
    with transaction(con):
        for table, columns, rows in (
            ("ops.listings", "source, endpoint, dataset, page, more, asked_by, listed", listed),
            ("ops.budgets", "source, measure, period, allowed", list(budgets)),
        ):
            con.execute(f"DELETE FROM {table}")
            for row in rows:
                con.execute(f"INSERT INTO {table} ({columns}) VALUES "
                            f"({', '.join('?' * len(row))})", row)
