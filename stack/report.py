"""What the demo shows: do the books reconcile, what did it cost, what did the checks say.

`read` takes everything out of the warehouse as plain rows (they go into demo.json too), and
`verdict` judges them; `tables.show` prints them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

RECONCILIATION = """
    SELECT r.source, r.account, r.token, coalesce(a.symbol, r.token) AS symbol,
        coalesce(a.chain, '') AS chain,
        strftime(r.snapshot_ts, '%Y-%m-%dT%H:%M:%SZ') AS snapshot, r.computed_text AS computed,
        r.reported_text AS reported, r.difference_text AS difference, r.status,
        coalesce(u.legs, 0) AS legs
    FROM curated.reconciliation r
    LEFT JOIN curated.assets a ON a.token = r.token
    LEFT JOIN (SELECT source, account, token, count(*) AS legs FROM curated.tx_unified
               WHERE counts GROUP BY ALL) u
        ON (u.source, u.account, u.token) = (r.source, r.account, r.token)
    ORDER BY r.source, r.account, r.status = 'reconciled', legs DESC, r.token"""
LOADED = """
    SELECT run_id, source, sum(new)::BIGINT AS new, sum(changed)::BIGINT AS changed
    FROM ops.batches GROUP BY ALL"""
CALLED = """
    SELECT run_id, source, count(*) AS calls, sum(units)::BIGINT AS units
    FROM ops.api_calls GROUP BY ALL"""
CHECKED = """
    SELECT run_id, checkpoint, count(*) FILTER (success) AS passed,
        count(*) FILTER (NOT success AND severity = 'critical') AS critical,
        count(*) FILTER (NOT success AND severity = 'warning') AS warning,
        count(*) FILTER (NOT success AND severity NOT IN ('critical', 'warning')) AS info
    FROM ops.checkpoints GROUP BY ALL ORDER BY checkpoint"""


def rows(con, sql: str, params: Sequence[Any] = ()) -> list[dict[str, Any]]:
    cursor = con.execute(sql, list(params))
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, values, strict=True)) for values in cursor.fetchall()]


def read(con, runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The report's rows. `runs`: {"name", "run_id"} each."""
    from extract.sources import names

    loaded = {(r["run_id"], r["source"]): r for r in rows(con, LOADED)}
    called = {(r["run_id"], r["source"]): r for r in rows(con, CALLED)}
    fetched = []
    for run in runs:
        full = {
            r.pop("source"): r
            for r in rows(
                con,
                "SELECT source, calls, units FROM ops.full_refreshes WHERE run_id = ?",
                [run["run_id"]],
            )
        }
        for source in names():
            key = (run["run_id"], source)
            ours = {"calls": 0, "units": 0, "new": 0, "changed": 0}
            ours |= {
                k: v for k, v in {**loaded.get(key, {}), **called.get(key, {})}.items() if k in ours
            }
            fetched.append(
                {"run": run["name"], "source": source, **ours, "full_refresh": full.get(source)}
            )
    called_so = {run["run_id"]: run["name"] for run in runs}
    checked = [
        {**r, "run": called_so[r["run_id"]]} for r in rows(con, CHECKED) if r["run_id"] in called_so
    ]
    order = list(called_so.values())
    checked.sort(key=lambda r: (order.index(r["run"]), r["checkpoint"]))
    return {"reconciliation": rows(con, RECONCILIATION), "fetched": fetched, "checkpoints": checked}


def verdict(
    report: Mapping[str, Any],
    accounts: Sequence[tuple[str, str]],
    newest: str,
    stats: Mapping[str, Any],
    runs: Sequence[str],
) -> list[str]:
    """What is wrong, in sentences; empty when every account reconciles and the counts agree.

    `accounts`: (source, account) each; `newest`: the instant the last snapshot must be of;
    `stats`: the sandbox's own count of calls and units.
    """
    wrong = []
    for source, account in accounts:
        mine = [
            r for r in report["reconciliation"] if (r["source"], r["account"]) == (source, account)
        ]
        if not any(r["status"] == "reconciled" for r in mine):
            wrong.append(f"{source} {account}: no reconciled balance")
        wrong += [
            f"{source} {account}: {r['symbol']} is {r['status']}, difference {r['difference']}"
            for r in mine
            if r["status"] != "reconciled"
        ]
        if any(r["snapshot"] < newest for r in mine):
            wrong.append(
                f"{source} {account}: the newest covered snapshot is of "
                f"{mine[0]['snapshot']}, not of {newest}"
            )
    for run in runs:
        mine = [c for c in report["checkpoints"] if c["run"] == run]
        if not mine:
            wrong.append(f"{run}: no checkpoint was recorded")
        wrong += [
            f"{run}: {c['critical']} critical expectation(s) of {c['checkpoint']} failed"
            for c in mine
            if c["critical"]
        ]
    for source, total in stats["total"].items():
        ours = sum(f["calls"] for f in report["fetched"] if f["source"] == source)
        if ours != total:
            wrong.append(f"{source}: {ours} calls logged, the sandbox counted {total}")
    units = sum(f["units"] for f in report["fetched"])
    if units != stats["units_spent"]:
        wrong.append(f"debank: {units} units logged, the sandbox counted {stats['units_spent']}")
    return wrong
