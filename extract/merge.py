"""Merging one dataset's incoming rows into its raw table, inside the caller's transaction.

new      no row of this key                              → inserted
changed  the row differs and is not older                → old version to history, replaced
same     the row is what we have                         → nothing is written
stale    the row differs but is older than what we have  → to history, the table untouched
removed  a leg that its transaction no longer has        → to history, deleted

Temporary tables of the batch: `incoming_<name>` (its rows, each key once), `verdict_<name>`
(key, verdict, rowid of the row there is) and `old_<name>` (the rows that will be replaced).
"""

from __future__ import annotations

from extract.datasets import META
from extract.source import Dataset

# An existing row is looked for within the batch's own span of time, this much wider on both
# sides, so that the join reads a few days and not the history. Chain reorganisations move a
# transaction's time by seconds.
SLACK = "INTERVAL 2 DAY"
PARENT_OF = {"onchain_transfers": "onchain_transactions"}
VERDICTS = ("new", "changed", "same", "stale", "removed")


def merge(con, dataset: Dataset, mapping: str, batch_id: str) -> tuple[int, ...]:
    """Merge what the SELECT `mapping` makes of `pages`: (rows, new, changed, same, stale, removed).

    Raises ValueError where a key would be there twice; the caller rolls back.
    """
    _read(con, dataset, mapping)
    _judge(con, dataset)
    name = dataset.name
    counts = dict(con.execute(f"SELECT verdict, count(*) FROM verdict_{name} GROUP BY 1").fetchall())
    _keep_shadowed(con, dataset, batch_id)
    if set(counts) - {"same"}:
        _keep_history(con, dataset, batch_id)
        if dataset.moves_balances:
            _touch_days(con, dataset, batch_id)
        _replace(con, dataset, batch_id)
        _assert_unique(con, dataset, batch_id)
    rows = con.execute(f"SELECT count(*) FROM incoming_{name}").fetchone()[0]
    return (rows, *(counts.get(v, 0) for v in VERDICTS))


def _of(alias: str, columns) -> str:
    return ", ".join(f"{alias}.{c}" for c in columns)


def _columns(dataset: Dataset) -> list[str]:
    return [c.name for c in dataset.columns]


def _read(con, dataset: Dataset, mapping: str) -> None:
    """incoming_<name>: the newest reading of every key; shadowed_<name>: the older ones."""
    name, columns = dataset.name, _of("m", _columns(dataset))
    con.execute(f"""
        CREATE OR REPLACE TEMP TABLE mapped_{name} AS
        SELECT {columns}, hash({columns}) AS row_hash, p.received_at AS observed_at,
               m.page_id, m.item, p.lo, p.hi
        FROM ({mapping}) m JOIN pages p USING (page_id)""")
    _refuse_nameless(con, dataset)
    within = "WHERE m.ts >= m.lo AND m.ts < m.hi" \
        if dataset.moves_balances and not dataset.dimension else ""
    parent = PARENT_OF.get(name)
    # Legs come and go together: those of the reading that is the transaction's newest, which
    # may have none.
    age = f"CASE WHEN (m.page_id, m.item) IN (SELECT (page_id, item) FROM read_{parent} " \
          "WHERE age = 1) THEN 1 ELSE 2 END" if parent else \
        f"row_number() OVER (PARTITION BY {_of('m', dataset.key)} " \
        "ORDER BY m.observed_at DESC, m.page_id DESC, m.item)"
    con.execute(f"CREATE OR REPLACE TEMP TABLE read_{name} AS "
                f"SELECT *, {age} AS age FROM mapped_{name} m {within}")
    columns = ", ".join([*_columns(dataset), "row_hash", "observed_at"])
    con.execute(f"CREATE OR REPLACE TEMP TABLE incoming_{name} AS "
                f"SELECT {columns} FROM read_{name} WHERE age = 1")
    con.execute(f"""
        CREATE OR REPLACE TEMP TABLE shadowed_{name} AS
        SELECT {columns} FROM read_{name} r ANTI JOIN incoming_{name} n
            USING ({', '.join(dataset.key)}, row_hash)
        QUALIFY row_number() OVER (PARTITION BY {_of('r', dataset.key)}, row_hash
            ORDER BY observed_at) = 1""")


def _refuse_nameless(con, dataset: Dataset) -> None:
    """A row without its key or time cannot be placed, and must not be skipped: ValueError."""
    needed = dataset.key if dataset.dimension else (*dataset.key, "ts")
    lacking = ", ".join(f"CASE WHEN m.{k} IS NULL THEN '{k}' END" for k in needed)
    found = con.execute(f"""
        SELECT concat_ws(', ', {lacking}), p.endpoint, m.item, p.file
        FROM mapped_{dataset.name} m JOIN pages p USING (page_id)
        WHERE {' OR '.join(f'm.{k} IS NULL' for k in needed)} LIMIT 1""").fetchone()
    if found:
        raise ValueError(f"row {found[2]} of a page of {found[1]} has no {found[0]}, so it cannot "
                         f"be placed in {dataset.table} (file {found[3]})")


def _existing(con, dataset: Dataset) -> str:
    """The part of the raw table that the batch can meet."""
    if dataset.dimension:
        return f"(SELECT rowid AS id, * FROM {dataset.table})"
    parent = PARENT_OF.get(dataset.name)  # a transaction may come back without any leg
    spans = [f"SELECT ts FROM incoming_{name}" for name in (dataset.name, parent) if name]
    lo, hi = con.execute(
        f"SELECT min(ts) - {SLACK}, max(ts) + {SLACK} FROM ({' UNION ALL '.join(spans)})"
    ).fetchone()
    # Literals: zone maps skip the rest of the table only when the bounds are known beforehand.
    bound = f"ts >= '{lo}' AND ts <= '{hi}'" if lo is not None else "false"
    return f"(SELECT rowid AS id, * FROM {dataset.table} WHERE {bound})"


def _judge(con, dataset: Dataset) -> None:
    name, key, existing = dataset.name, ", ".join(dataset.key), _existing(con, dataset)
    parent, group = PARENT_OF.get(name), ", ".join(dataset.group)
    skip = f"ANTI JOIN (FROM verdict_{parent} WHERE verdict = 'stale') s USING ({group})" \
        if parent else ""
    con.execute(f"""
        CREATE OR REPLACE TEMP TABLE verdict_{name} AS
        SELECT {_of('n', dataset.key)}, o.id, CASE
            WHEN o.id IS NULL THEN 'new' WHEN o.row_hash = n.row_hash THEN 'same'
            WHEN n.observed_at < o.changed_at THEN 'stale' ELSE 'changed' END AS verdict
        FROM incoming_{name} n {skip} LEFT JOIN {existing} o USING ({key})""")
    if parent:
        con.execute(f"""
            INSERT INTO verdict_{name}
            SELECT {_of('o', dataset.key)}, o.id, 'removed' FROM {existing} o
            SEMI JOIN (FROM verdict_{parent} WHERE verdict <> 'stale') g USING ({group})
            ANTI JOIN incoming_{name} n USING ({key})""")
    con.execute(f"""
        CREATE OR REPLACE TEMP TABLE old_{name} AS
        SELECT o.*, v.verdict FROM {existing} o
        JOIN verdict_{name} v ON v.id = o.id WHERE v.verdict IN ('changed', 'removed')""")


def _history_row(dataset: Dataset, alias: str) -> tuple[str, str, str]:
    """SQL of a row's key (JSON), event time, and whole content (JSON, amounts as text)."""
    # DECIMALs as text: a JSON number would be read back as a double.
    fields = ", ".join(
        f"{c.name} := {alias}.{c.name}" + ("::VARCHAR" if c.type.startswith("DEC") else "")
        for c in dataset.columns)
    key = ", ".join(f"{k} := {alias}.{k}" for k in dataset.key)
    return (f"to_json(struct_pack({key}))::VARCHAR",
            "NULL::TIMESTAMP" if dataset.dimension else f"{alias}.ts",
            f"to_json(struct_pack({fields}))::VARCHAR")


def _keep_history(con, dataset: Dataset, batch_id: str) -> None:
    """What is about to be replaced or removed, and what came too late to be current."""
    name, key = dataset.name, ", ".join(dataset.key)
    its_key, ts, row = _history_row(dataset, "o")
    con.execute(f"""
        INSERT INTO raw.history
        SELECT '{name}', {its_key}, {ts}, o.row_hash, o.changed_at,
               coalesce(n.observed_at, (SELECT max(received_at) FROM pages)), o.verdict,
               '{batch_id}', {row}
        FROM old_{name} o LEFT JOIN incoming_{name} n USING ({key})""")
    if con.execute(f"SELECT 1 FROM verdict_{name} WHERE verdict = 'stale' LIMIT 1").fetchone():
        _keep_stale(con, dataset, batch_id, f"(SELECT n.* FROM incoming_{name} n SEMI JOIN (FROM "
                    f"verdict_{name} WHERE verdict = 'stale') v USING ({key}))")


def _keep_shadowed(con, dataset: Dataset, batch_id: str) -> None:
    """Versions that a newer reading in the same batch replaced before they were ever current."""
    name = dataset.name
    if con.execute(f"SELECT 1 FROM shadowed_{name} LIMIT 1").fetchone():
        _keep_stale(con, dataset, batch_id, f"shadowed_{name}")


def _keep_stale(con, dataset: Dataset, batch_id: str, rows: str) -> None:
    """Older versions, each once: neither one that is current nor one the history has."""
    its_key, ts, row = _history_row(dataset, "n")
    con.execute(f"""
        INSERT INTO raw.history
        SELECT * FROM (
            SELECT '{dataset.name}' AS dataset, {its_key} AS key, {ts} AS ts, n.row_hash,
                   n.observed_at, n.observed_at AS valid_to, 'stale' AS change,
                   '{batch_id}' AS batch_id, {row} AS row
            FROM {rows} n ANTI JOIN {_existing(con, dataset)} o
                USING ({', '.join(dataset.key)}, row_hash)) s
        ANTI JOIN raw.history h USING (dataset, key, row_hash)""")


def _touch_days(con, dataset: Dataset, batch_id: str) -> None:
    """Days that gained, lost or changed a row; a dimension's day is that of the change."""
    name, key = dataset.name, ", ".join(dataset.key)
    now, was = ("n.observed_at", "n.observed_at") if dataset.dimension else ("n.ts", "o.ts")
    con.execute(f"""
        INSERT INTO ops.touched_days
        SELECT DISTINCT '{name}', day, '{batch_id}' FROM (
            SELECT {now}::DATE AS day FROM verdict_{name} v JOIN incoming_{name} n USING ({key})
            WHERE v.verdict IN ('new', 'changed')
            UNION ALL
            SELECT {was}::DATE FROM old_{name} o LEFT JOIN incoming_{name} n USING ({key}))
        WHERE day IS NOT NULL""")


def _replace(con, dataset: Dataset, batch_id: str) -> None:
    name, key = dataset.name, ", ".join(dataset.key)
    con.execute(f"DELETE FROM {dataset.table} WHERE rowid IN (SELECT id FROM old_{name})")
    columns = ", ".join([*_columns(dataset), *(c.name for c in META)])
    # In time order: zone maps of the raw table stay narrow whatever order the pages came in.
    order = "" if dataset.dimension else " ORDER BY n.ts"
    con.execute(f"""
        INSERT INTO {dataset.table} ({columns})
        SELECT {_of('n', _columns(dataset))}, n.row_hash,
               coalesce(o.first_seen_at, n.observed_at), n.observed_at, '{batch_id}'
        FROM verdict_{name} v JOIN incoming_{name} n USING ({key})
        LEFT JOIN old_{name} o USING ({key})
        WHERE v.verdict IN ('new', 'changed'){order}""")


def _assert_unique(con, dataset: Dataset, batch_id: str) -> None:
    """Every key once over the days of this batch; raises ValueError naming one that is not."""
    keys, where = ", ".join(dataset.key), ""
    if not dataset.dimension:
        days = sorted(d for (d,) in con.execute(
            f"SELECT DISTINCT ts::DATE FROM incoming_{dataset.name}").fetchall())
        if not days:
            return
        listed = ", ".join(f"'{d}'" for d in days)
        where = (f"WHERE ts >= '{days[0]}' AND ts < '{days[-1]}'::DATE + 1 "
                 f"AND ts::DATE IN ({listed})")
    twice = con.execute(f"SELECT {keys} FROM {dataset.table} {where} GROUP BY {keys} "
                        "HAVING count(*) > 1 LIMIT 1").fetchone()
    if twice:
        raise ValueError(f"{dataset.table} would hold the key ({keys}) = {twice} twice")
