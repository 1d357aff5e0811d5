"""Records that have no place in their raw table: kept in raw.rejected with the reason.

A record without its key or its time cannot be placed, and must neither be dropped nor stop the
others. The same record of an account is kept once, with where it was met first.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from extract.core.datasets import Dataset

if TYPE_CHECKING:
    import duckdb

log = logging.getLogger(__name__)


def lacking(dataset: Dataset) -> str:
    """Condition: row `m` of mapped_<name> has no place in the table."""
    return "(" + " OR ".join(f"m.{column} IS NULL" for column in _needed(dataset)) + ")"


def _needed(dataset: Dataset) -> tuple[str, ...]:
    return dataset.key if dataset.dimension else (*dataset.key, "ts")


def reject(con: duckdb.DuckDBPyConnection, dataset: Dataset, batch_id: str) -> int:
    """Keep the records of mapped_<name> that have no place; returns how many there are."""
    name, columns = dataset.name, [c.name for c in dataset.columns]
    if not con.execute(
        f"SELECT 1 FROM mapped_{name} m WHERE {lacking(dataset)} LIMIT 1"
    ).fetchone():
        return 0
    lacks = ", ".join(f"CASE WHEN m.{c} IS NULL THEN '{c}' END" for c in _needed(dataset))
    fields = ", ".join(f"{c} := m.{c}::VARCHAR" for c in columns)
    record = f"to_json(struct_pack({fields}))::VARCHAR"
    payload = f"coalesce(m.payload, {record})" if "payload" in columns else record
    con.execute(f"""
        CREATE OR REPLACE TEMP TABLE rejected_{name} AS
        SELECT p.source, p.account, p.endpoint, parse_filename(p.file) AS file,
               (m.page_id % 1000000)::INTEGER AS page, m.item::INTEGER AS item,
               'it has no ' || concat_ws(', ', {lacks}) AS reason, {payload} AS payload,
               m.observed_at AS first_seen_at
        FROM mapped_{name} m JOIN pages p USING (page_id) WHERE {lacking(dataset)}""")
    return keep(con, name, batch_id)


def keep(con: duckdb.DuckDBPyConnection, name: str, batch_id: str) -> int:
    """Add those of the temporary table rejected_<name> that raw.rejected does not have yet, say so
    in the log, and return how many there are."""
    con.execute(f"""
        INSERT INTO raw.rejected BY NAME
        SELECT r.*, '{name}' AS dataset, '{batch_id}' AS batch_id FROM rejected_{name} r
        WHERE NOT EXISTS (
            SELECT 1 FROM raw.rejected k WHERE k.dataset = '{name}' AND k.source = r.source
            AND k.account = r.account AND k.payload IS NOT DISTINCT FROM r.payload)
        QUALIFY row_number() OVER (PARTITION BY r.source, r.account, r.payload
            ORDER BY r.first_seen_at, r.file, r.page, r.item) = 1""")
    counts = con.execute(
        f"SELECT source, account, reason, count(*), any_value(file) FROM rejected_{name} "
        "GROUP BY ALL ORDER BY ALL"
    ).fetchall()
    for source, account, reason, count, file in counts:
        log.warning(
            "%s %s: %d record(s) of %s have no place in raw.%s: %s (first in %s). They are kept in "
            "raw.rejected; everything else is loaded",
            source,
            account,
            count,
            name,
            name,
            reason,
            file,
        )
    return sum(count for *_, count, _ in counts)
