"""The one number of the books: which share of their value is exact or explained.

agreement(con) -> {(source, account): {...}}    of a warehouse or of books
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import duckdb

AGREE = ("exact", "within_tolerance", "explained")  # statuses of curated.reconciliation
# Spam is kept apart and never counted. `value` is USD, of balances whose price is known; where
# none is (an exchange that names no prices), the share is that of tokens.
AGREEMENT = f"""
    SELECT source, account, count(*) AS tokens, count(*) FILTER (status IN {AGREE}) AS agreeing,
        count(*) FILTER (status = 'off') AS off, sum(value) AS value,
        sum(value) FILTER (status IN {AGREE}) AS agreeing_value,
        CASE WHEN sum(value) > 0 THEN coalesce(sum(value) FILTER (status IN {AGREE}), 0)
            / sum(value) ELSE count(*) FILTER (status IN {AGREE}) / count(*) END AS share
    FROM (SELECT *, TRY_CAST(abs(reported) AS DOUBLE) * TRY_CAST(price AS DOUBLE) AS value
          FROM curated.reconciliation WHERE kind IS DISTINCT FROM 'spam')
    GROUP BY ROLLUP (source, account) HAVING (source IS NULL) = (account IS NULL)
    ORDER BY source NULLS FIRST, account"""


def agreement(con: duckdb.DuckDBPyConnection) -> dict[tuple[str, str] | None, dict[str, Any]]:
    """By account, and under None of all: tokens, agreeing, off, value, agreeing_value and share
    (0 to 1). Values and shares are for people: floats, of no use in a sum of money."""
    cursor = con.execute(AGREEMENT)
    names = [column[0] for column in cursor.description]
    found: dict[tuple[str, str] | None, dict[str, Any]] = {}
    for row in cursor.fetchall():
        told = dict(zip(names, row, strict=True))
        source, account = told.pop("source"), told.pop("account")
        found[None if source is None else (source, account)] = told
    return found
