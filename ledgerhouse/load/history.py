"""The audit trail of raw rows: every version a row ever had, what replaced it, and when.

`raw.history` gets a version when another takes its place: changed (by a newer one), removed (a
leg its transaction no longer has), vanished (a whole fetch of its time lacks the row), stale
(an older version seen after a newer one). Amounts are kept as text inside `row`.

    FROM raw.exchanges_ledger_as_of(TIMESTAMP '2026-01-31')   the rows as they were known then
    FROM ops.changes                                          the trail with the runs behind it
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from extract.core.datasets import Dataset

if TYPE_CHECKING:
    import duckdb


def archive_versions(con: duckdb.DuckDBPyConnection, dataset: Dataset, batch_id: str) -> None:
    """Write to raw.history what this batch replaces or ends, and what was never current."""
    name, key = dataset.name, ", ".join(dataset.key)

    def any_row(what: str) -> bool:
        return con.execute(f"SELECT 1 FROM {what} LIMIT 1").fetchone() is not None

    if any_row(f"old_{name}"):
        its_key, ts, row = _history_row(dataset, "o")
        con.execute(f"""
        INSERT INTO raw.history (dataset, key, ts, row_hash, valid_from, valid_to, change,
                                 batch_id, row)
        SELECT '{name}', {its_key}, {ts}, o.row_hash, o.changed_at,
               coalesce(CASE WHEN o.verdict = 'vanished' THEN o.gone ELSE n.observed_at END,
                        (SELECT max(received_at) FROM pages)),
               o.verdict, '{batch_id}', {row}
        FROM old_{name} o LEFT JOIN incoming_{name} n USING ({key})
        WHERE o.vanished_at IS NULL""")  # its version was kept when it vanished
    if any_row(f"verdict_{name} WHERE gone IS NOT NULL AND in_batch"):
        its_key, ts, row = _history_row(dataset, "n")
        con.execute(f"""
        INSERT INTO raw.history (dataset, key, ts, row_hash, valid_from, valid_to, change,
                                 batch_id, row)
        SELECT '{name}', {its_key}, {ts}, n.row_hash, n.observed_at, v.gone, 'vanished',
               '{batch_id}', {row}
        FROM verdict_{name} v JOIN incoming_{name} n USING ({key})
        WHERE v.verdict IN ('new', 'changed') AND v.gone > n.observed_at""")
    if any_row(f"verdict_{name} WHERE verdict = 'stale'"):
        _archive_stale(
            con,
            dataset,
            batch_id,
            f"(SELECT n.* FROM incoming_{name} n SEMI JOIN (FROM "
            f"verdict_{name} WHERE verdict = 'stale') v USING ({key}))",
        )


def archive_shadowed(con: duckdb.DuckDBPyConnection, dataset: Dataset, batch_id: str) -> None:
    """Write to raw.history the versions that a newer fetch in the same batch replaced before they
    were ever current."""
    name = dataset.name
    if con.execute(f"SELECT 1 FROM shadowed_{name} LIMIT 1").fetchone():
        _archive_stale(con, dataset, batch_id, f"shadowed_{name}")


def _archive_stale(con, dataset: Dataset, batch_id: str, rows: str) -> None:
    """Older versions, each once: neither one that is current nor one the history has."""
    its_key, ts, row = _history_row(dataset, "n")
    con.execute(f"""
        INSERT INTO raw.history (dataset, key, ts, row_hash, valid_from, valid_to, change,
                                 batch_id, row)
        SELECT * FROM (
            SELECT '{dataset.name}' AS dataset, {its_key} AS key, {ts} AS ts, n.row_hash,
                   n.observed_at, n.observed_at AS valid_to, 'stale' AS change,
                   '{batch_id}' AS batch_id, {row} AS row
            FROM {rows} n ANTI JOIN existing_{dataset.name} o
                USING ({", ".join(dataset.key)}, row_hash)) s
        ANTI JOIN raw.history h USING (dataset, key, row_hash)""")


def row_key(dataset: Dataset, alias: str) -> str:
    """SQL of a row's key as the history has it: JSON text."""
    key = ", ".join(f"{k} := {alias}.{k}" for k in dataset.key)
    return f"to_json(struct_pack({key}))::VARCHAR"


def _history_row(dataset: Dataset, alias: str) -> tuple[str, str, str]:
    """SQL of a row's key (JSON), event time, and whole content (JSON, amounts as text)."""
    # DECIMALs as text: a JSON number would be read back as a double.
    fields = ", ".join(
        f"{c.name} := {alias}.{c.name}" + ("::VARCHAR" if c.type.startswith("DEC") else "")
        for c in dataset.columns
    )
    return (
        row_key(dataset, alias),
        "NULL::TIMESTAMP" if dataset.dimension else f"{alias}.ts",
        f"to_json(struct_pack({fields}))::VARCHAR",
    )
