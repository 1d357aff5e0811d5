"""Merging one dataset's incoming rows into its raw table, inside the caller's transaction.

new       no row of this key                              → inserted
changed   the row differs and is not older                → old version to history, replaced
same      the row is what we have                         → nothing is written
stale     the row differs but is older than what we have  → to history, the table untouched
removed   a leg that its transaction no longer has        → to history, deleted
vanished  the newest whole fetch of its time lacks it     → to history, marked vanished_at

A vanished row that a newer fetch shows again has changed: its mark goes. Temporary tables and
views of the batch: `incoming_<name>` (its rows, each key once), `existing_<name>` (the rows of the
table that may have the same keys), `verdict_<name>` (key, rowid of the existing row, verdict, when
it vanished, whether it is in the batch and of what day) and `old_<name>` (the rows that will be
replaced).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from extract.core.datasets import META, Dataset
from extract.core.interval import closed, joined
from ledgerhouse.load import coverage_segments, history, rejects

if TYPE_CHECKING:
    import duckdb

# An existing row is looked for within the batch's own spans of time, this much wider on both
# sides, so that the join reads a few days and not the history. Chain reorganisations move a
# transaction's time by seconds.
SLACK = 2  # days
DAY = 86_400_000_000  # microseconds
MOST_SPANS = 32  # a late row of each of twenty days is twenty spans, not the years between
ROW_GROUP = 122_880  # rows, https://duckdb.org/docs/stable/internals/storage
PARENT_OF = {"onchain_transfers": "onchain_transactions"}
VERDICTS = ("new", "changed", "same", "stale", "removed", "vanished")


@dataclass(frozen=True)
class Merged:
    """What became of the records of a dataset: `rows` have each key once, `verdicts` counts them by
    VERDICTS. Of the records within their page's interval, read = rows + shadowed + rejected."""

    rows: int
    verdicts: tuple[int, ...]
    shadowed: int
    rejected: int


def merge(con: duckdb.DuckDBPyConnection, dataset: Dataset, mapping: str, batch_id: str) -> Merged:
    """Merge what the SELECT `mapping` makes of `pages`.

    A record without a key or a time goes to raw.rejected. Raises ValueError where a key would be
    there twice; the caller rolls back.
    """
    name = dataset.name
    coverage_segments.open_segments(con, name)
    rejected = _read(con, dataset, mapping, batch_id)
    _open_existing(con, dataset)
    if name in PARENT_OF:
        _judge_legs(con, dataset)
    else:
        _judge(con, dataset)
    con.execute(f"""
        CREATE OR REPLACE TEMP TABLE old_{name} AS
        SELECT o.*, v.verdict, v.gone FROM existing_{name} o JOIN verdict_{name} v ON v.id = o.id
        WHERE v.verdict IN ('changed', 'removed', 'vanished')""")
    counts = dict(
        con.execute(f"SELECT verdict, count(*) FROM verdict_{name} GROUP BY 1").fetchall()
    )
    history.archive_shadowed(con, dataset, batch_id)
    if set(counts) - {"same"}:
        history.archive_versions(con, dataset, batch_id)
        if dataset.moves_balances:
            _touch_days(con, dataset, batch_id)
        _replace(con, dataset, batch_id)
        _assert_unique(con, dataset)
    coverage_segments.record(con, name)
    [(rows, shadowed)] = con.execute(
        f"SELECT count(*) FILTER (age = 1), count(*) FILTER (age > 1) FROM read_{name}"
    ).fetchall()
    return Merged(rows, tuple(counts.get(v, 0) for v in VERDICTS), shadowed, rejected)


def _of(alias: str, columns) -> str:
    return ", ".join(f"{alias}.{c}" for c in columns)


def _columns(dataset: Dataset) -> list[str]:
    return [c.name for c in dataset.columns]


def row_hash(dataset: Dataset, alias: str) -> str:
    """SQL of a row's hash: of all its columns, but for added ones that are all NULL."""
    columns = _columns(dataset)
    every = f"hash({_of(alias, columns)})"
    if not dataset.added:
        return every
    before = _of(alias, (c for c in columns if c not in dataset.added))
    there = " AND ".join(f"{alias}.{c} IS NULL" for c in dataset.added)
    return f"CASE WHEN {there} THEN hash({before}) ELSE {every} END"


def _read(con, dataset: Dataset, mapping: str, batch_id: str) -> int:
    """incoming_<name>: the newest version of every key; shadowed_<name>: the older ones. Returns
    how many records were rejected."""
    name, columns = dataset.name, _of("m", _columns(dataset))
    # Materialized, the mapping runs on every core; as the source of a table it runs on one.
    con.execute(f"""
        CREATE OR REPLACE TEMP TABLE mapped_{name} AS
        WITH mapped AS MATERIALIZED (
            SELECT {columns}, {row_hash(dataset, "m")} AS row_hash, p.received_at AS observed_at, p.read_at,
                   m.page_id, m.item, p.lo, p.hi
            FROM ({mapping}) m JOIN pages p USING (page_id))
        FROM mapped""")
    rejected = rejects.reject(con, dataset, batch_id)
    within = "AND m.ts >= m.lo AND m.ts < m.hi" if dataset.has_history else ""
    parent, key = PARENT_OF.get(name), _of("m", dataset.key)
    # Legs come and go together: those of the record that is the transaction's newest, which
    # may have none.
    age = (
        f"CASE WHEN (m.page_id, m.item) IN (SELECT (page_id, item) FROM read_{parent} "
        "WHERE age = 1) THEN 1 ELSE 2 END"
        if parent
        else f"row_number() OVER (PARTITION BY {key} "
        "ORDER BY m.observed_at DESC, m.page_id DESC, m.item)"
    )
    # Ages are computed on narrow rows: payloads need not go through a sort.
    con.execute(
        f"CREATE OR REPLACE TEMP TABLE read_{name} AS SELECT m.rowid AS row, m.page_id, "
        f"m.item, {age} AS age, max(m.read_at) OVER (PARTITION BY {key}) AS seen_at "
        f"FROM mapped_{name} m WHERE NOT {rejects.lacking(dataset)} {within}"
    )
    columns = ", ".join([*_columns(dataset), "row_hash", "observed_at", "seen_at"])
    rows = (
        f"(SELECT m.*, r.age, r.seen_at FROM mapped_{name} m JOIN read_{name} r ON r.row = m.rowid)"
    )
    con.execute(
        f"CREATE OR REPLACE TEMP VIEW incoming_{name} AS SELECT {columns} FROM {rows} WHERE age = 1"
    )
    con.execute(f"""
        CREATE OR REPLACE TEMP TABLE shadowed_{name} AS
        SELECT {columns} FROM (FROM {rows} WHERE age > 1) r
        ANTI JOIN incoming_{name} n USING ({", ".join(dataset.key)}, row_hash)
        QUALIFY row_number() OVER (PARTITION BY {_of("r", dataset.key)}, row_hash
            ORDER BY observed_at) = 1""")
    return rejected


def _open_existing(con, dataset: Dataset) -> None:
    """existing_<name>, a view: the part of the raw table that the batch can meet."""
    where = [""]
    if not dataset.dimension:
        spans = [
            f"SELECT ts AS lo, ts AS hi FROM incoming_{name}"
            for name in (dataset.name, PARENT_OF.get(dataset.name))
            if name
        ]
        if dataset.has_history:
            spans += [f"SELECT start_ts, end_ts FROM segments_{dataset.name} WHERE fresh"]
        days = con.execute(
            f"SELECT DISTINCT lo::DATE - '1970-01-01'::DATE, "
            f"hi::DATE - '1970-01-01'::DATE FROM ({' UNION ALL '.join(spans)}) "
            "WHERE lo IS NOT NULL AND hi IS NOT NULL"
        ).fetchall()
        # Literals, each span apart: zone maps skip the rest of the table only where the bounds
        # are known beforehand and not joined by OR.
        where = [
            f"WHERE ts >= make_timestamp({lo * DAY}) AND ts < make_timestamp({hi * DAY})"
            for lo, hi in _spans(days)
        ] or ["WHERE false"]
    con.execute(
        f"CREATE OR REPLACE TEMP VIEW existing_{dataset.name} AS "
        + " UNION ALL ".join(f"SELECT rowid AS id, * FROM {dataset.table} {each}" for each in where)
    )


def _spans(days: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """First and last days (numbered from 1970) as disjoint spans [first, end), SLACK wider; the
    smallest gaps are closed where there would be more than MOST_SPANS."""
    spans = joined((first - SLACK, last + SLACK + 1) for first, last in days)
    return closed(spans, len(spans) - MOST_SPANS)


# What becomes of a row of the batch (n) that meets a row there is (o), once it is decided when
# it vanished (gone).
_VERDICT = """CASE
    WHEN o.id IS NULL THEN 'new'
    WHEN o.row_hash = n.row_hash AND (gone IS NULL) = (o.vanished_at IS NULL) THEN 'same'
    WHEN o.row_hash = n.row_hash AND gone IS NOT NULL THEN 'vanished'
    WHEN o.row_hash <> n.row_hash AND n.observed_at < o.changed_at THEN 'stale'
    ELSE 'changed' END AS verdict"""


def _judge(con, dataset: Dataset) -> None:
    """verdict_<name>, for a dataset whose rows stand for themselves."""
    name, key = dataset.name, ", ".join(dataset.key)
    if not dataset.has_history:
        con.execute(f"""
            CREATE OR REPLACE TEMP TABLE verdict_{name} AS
            SELECT {_of("n", dataset.key)}, o.id, NULL::TIMESTAMP AS gone, {_VERDICT}, true AS in_batch,
                   {_day(dataset)}
            FROM incoming_{name} n LEFT JOIN existing_{name} o USING ({key})""")
        return
    (apart,) = con.execute(f"SELECT count(*) > 0 FROM segments_{name} WHERE part <> ''").fetchone()

    def part(alias: str) -> str:  # as segments_<name> names it
        column = f"{alias}.{dataset.part_column}"
        return (
            f"CASE WHEN ({alias}.source, {alias}.account, {column}) IN (SELECT (source, account, "
            f"part) FROM segments_{name} WHERE part <> '') THEN {column} ELSE '' END"
            if apart
            else "''"
        )

    # A row there is and live was in the newest reading we knew, so only a fresh one can lack it. One
    # that vanished before this version was seen has vanished again since.
    con.execute(f"""
        CREATE OR REPLACE TEMP TABLE verdict_{name} AS
        SELECT {_of("n", dataset.key)}, o.id, CASE
                   WHEN n.ts < n.end_ts THEN
                       CASE WHEN n.read_at > n.seen_at
                                 AND (o.id IS NULL OR o.vanished_at IS NOT NULL
                                      OR (n.fresh AND n.read_at > o.changed_at))
                            THEN CASE WHEN o.vanished_at > n.observed_at THEN o.vanished_at
                                      ELSE n.read_at END END
                   WHEN o.vanished_at > n.observed_at THEN o.vanished_at END AS gone,
               {_VERDICT}, true AS in_batch, {_day(dataset)}
        FROM (SELECT n.*, r.end_ts, r.read_at, r.fresh
              FROM (SELECT *, {part("i")} AS part FROM incoming_{name} i) n
              ASOF LEFT JOIN segments_{name} r ON n.source = r.source AND n.account = r.account
                  AND n.part = r.part AND n.ts >= r.start_ts) n
        LEFT JOIN existing_{name} o USING ({key})""")
    con.execute(f"""
        INSERT INTO verdict_{name}
        SELECT {_of("o", dataset.key)}, o.id, r.read_at, 'vanished', false, NULL
        FROM (SELECT *, {part("e")} AS part FROM existing_{name} e WHERE vanished_at IS NULL) o
        ASOF JOIN (FROM segments_{name}) r ON o.source = r.source AND o.account = r.account
            AND o.part = r.part AND o.ts >= r.start_ts
        ANTI JOIN (FROM verdict_{name} WHERE verdict <> 'stale') v ON v.id = o.id
        ANTI JOIN (FROM unread WHERE dataset = '{name}') u ON u.source = o.source
            AND u.account = o.account AND u.part = o.{dataset.part_column or "account"}
            AND u.read_at = r.read_at AND o.ts >= u.start_ts AND o.ts < u.end_ts
        WHERE o.ts < r.end_ts AND r.fresh AND r.read_at > o.changed_at""")


def _judge_legs(con, dataset: Dataset) -> None:
    """verdict_<name>, for legs: they vanish with their transaction, and are replaced with it."""
    name, key, group = dataset.name, ", ".join(dataset.key), ", ".join(dataset.group)
    parents = f"verdict_{PARENT_OF[name]}"
    con.execute(f"""
        CREATE OR REPLACE TEMP TABLE verdict_{name} AS
        SELECT {_of("n", dataset.key)}, o.id, p.gone, {_VERDICT}, true AS in_batch, {_day(dataset)}
        FROM incoming_{name} n
        JOIN (FROM {parents} WHERE in_batch AND verdict <> 'stale') p USING ({group})
        LEFT JOIN existing_{name} o USING ({key})""")
    con.execute(f"""
        INSERT INTO verdict_{name}
        SELECT {_of("o", dataset.key)}, o.id, NULL, 'removed', false, NULL FROM existing_{name} o
        SEMI JOIN (FROM {parents} WHERE in_batch AND verdict <> 'stale') p USING ({group})
        ANTI JOIN incoming_{name} n USING ({key})
        UNION ALL
        SELECT {_of("o", dataset.key)}, o.id, p.gone, 'vanished', false, NULL FROM existing_{name} o
        JOIN (FROM {parents} WHERE NOT in_batch) p USING ({group}) WHERE o.vanished_at IS NULL""")


def _day(dataset: Dataset) -> str:
    """The day that a row of the batch touches; of a dimension, that of the change."""
    return f"n.{'observed_at' if dataset.dimension else 'ts'}::DATE AS day"


def _touch_days(con, dataset: Dataset, batch_id: str) -> None:
    """Days that gained, lost or changed a row."""
    name = dataset.name
    was = "" if dataset.dimension else f"UNION ALL SELECT ts::DATE FROM old_{name}"
    con.execute(f"""
        INSERT INTO ops.touched_days (dataset, day, batch_id)
        SELECT DISTINCT '{name}', day, '{batch_id}' FROM (
            SELECT day FROM verdict_{name} WHERE verdict IN ('new', 'changed') {was})
        WHERE day IS NOT NULL""")


def _replace(con, dataset: Dataset, batch_id: str) -> None:
    """Delete the rows that are replaced, insert those that take their place."""
    name, key = dataset.name, ", ".join(dataset.key)
    con.execute(f"DELETE FROM {dataset.table} WHERE rowid IN (SELECT id FROM old_{name})")
    columns = ", ".join([*_columns(dataset), *(c.name for c in META)])
    (rows,) = con.execute(f"SELECT count(*) FROM verdict_{name} WHERE verdict = 'new'").fetchone()
    # In time order: zone maps of the raw table stay narrow whatever order the pages came in. Those
    # are of row groups, so the order within one is worth nothing (and costs a fifth of a load).
    order = "" if dataset.dimension or rows <= ROW_GROUP else "ORDER BY ts"
    con.execute(f"""
        INSERT INTO {dataset.table} ({columns})
        WITH written AS MATERIALIZED (
            SELECT {_of("n", _columns(dataset))}, n.row_hash,
                   coalesce(o.first_seen_at, n.observed_at),
                   n.observed_at, '{batch_id}', v.gone
            FROM verdict_{name} v JOIN incoming_{name} n USING ({key})
            LEFT JOIN old_{name} o USING ({key})
            WHERE v.verdict IN ('new', 'changed')
            UNION ALL
            SELECT {_of("o", _columns(dataset))}, o.row_hash, o.first_seen_at, o.changed_at,
                   '{batch_id}', o.gone
            FROM old_{name} o WHERE o.verdict = 'vanished')
        FROM written {order}""")


def _assert_unique(con, dataset: Dataset) -> None:
    """Every key once over the days of this batch; raises ValueError naming one that is not."""
    keys, where = ", ".join(dataset.key), ""
    if not dataset.dimension:
        days = sorted(
            d
            for (d,) in con.execute(
                f"SELECT DISTINCT ts::DATE FROM incoming_{dataset.name}"
            ).fetchall()
        )
        if not days:
            return
        listed = ", ".join(f"'{d}'" for d in days)
        where = (
            f"WHERE ts >= '{days[0]}' AND ts < '{days[-1]}'::DATE + 1 AND ts::DATE IN ({listed})"
        )
    twice = con.execute(
        f"SELECT {keys} FROM {dataset.table} {where} GROUP BY {keys} HAVING count(*) > 1 LIMIT 1"
    ).fetchone()
    if twice:
        raise ValueError(f"{dataset.table} would hold the key ({keys}) = {twice} twice")
