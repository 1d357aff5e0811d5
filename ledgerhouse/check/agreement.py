"""Which statuses of curated.reconciliation agree, and the one number of the books.

agreed_share(con) -> Decimal | None    of a warehouse, or of books of any version
"""

from __future__ import annotations

from decimal import ROUND_DOWN, Decimal, localcontext
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import duckdb

# The last is what books of 0.1.0 say.
AGREED = ("exact", "within_tolerance", "explained", "reconciled")


def agreed_share(
    con: duckdb.DuckDBPyConnection, source: str | None = None, account: str | None = None
) -> Decimal | None:
    """The share of the value of all balances, or of an account's, that is exact or explained: in
    percent with one digit, rounded down. None where nothing has a price.

    Spam is kept apart and never counted.
    """
    columns = {row[0] for row in con.execute("DESCRIBE curated.reconciliation").fetchall()}
    if not {"price", "kind"} <= columns:
        return None
    rows = con.execute(
        "SELECT status, reported_text, price::VARCHAR FROM curated.reconciliation "
        "WHERE price IS NOT NULL AND reported_text IS NOT NULL AND kind IS DISTINCT FROM 'spam' "
        "AND source = coalesce($source, source) AND account = coalesce($account, account)",
        {"source": source, "account": account},
    ).fetchall()
    with localcontext() as context:
        context.prec, context.rounding = 200, ROUND_DOWN  # or dust beside a fortune is lost
        agreed = total = Decimal(0)
        for status, reported, price in rows:
            value = abs(Decimal(reported) * Decimal(price))
            total += value
            agreed += value if status in AGREED else 0
        return (100 * agreed / total).quantize(Decimal("0.1")) if total else None
