"""What the demo shows: do the books reconcile, what did it cost, what did the checks say.

`read` takes everything out of the warehouse as plain rows (they go into demo.json too), and
`verdict` judges them; `tables.show` prints them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from stack.truth import Expectations, differences

if TYPE_CHECKING:
    import duckdb

RECONCILIATION = """
    SELECT r.source, r.account, r.token, coalesce(a.symbol, r.token) AS symbol,
        coalesce(a.chain, '') AS chain,
        strftime(r.snapshot_ts, '%Y-%m-%dT%H:%M:%SZ') AS snapshot, r.computed_text AS computed,
        r.reported_text AS reported, r.difference_text AS difference, r.status, r.kind, r.reason,
        strftime(b.last_good_ts, '%Y-%m-%dT%H:%M:%SZ') AS last_good,
        strftime(b.first_bad_ts, '%Y-%m-%dT%H:%M:%SZ') AS first_bad,
        coalesce(u.legs, 0) AS legs
    FROM curated.reconciliation r
    LEFT JOIN curated.assets a ON a.token = r.token
    LEFT JOIN (SELECT source, account, token, count(*) AS legs FROM curated.tx_unified
               WHERE counts GROUP BY ALL) u
        ON (u.source, u.account, u.token) = (r.source, r.account, r.token)
    LEFT JOIN (SELECT source, account, token, min(first_bad_ts) AS first_bad_ts,
                   arg_min(last_good_ts, first_bad_ts) AS last_good_ts
               FROM ops.breaks WHERE suspect <> 'adjustment' GROUP BY ALL) b
        ON (b.source, b.account, b.token) = (r.source, r.account, r.token)
    ORDER BY r.source, r.account, legs DESC, r.token"""
RUNS = """
    WITH runs AS (SELECT unnest($names) AS run, unnest($ids) AS run_id,
                      unnest(range(len($ids))) AS number)"""
FETCHED = f"""{RUNS}, sources AS (SELECT unnest($sources) AS source)
    SELECT run, source, coalesce(calls, 0) AS calls, coalesce(c.units, 0) AS units,
        coalesce(new, 0) AS new, coalesce(changed, 0) AS changed, f.full_refresh
    FROM runs CROSS JOIN sources
    LEFT JOIN (SELECT run_id, source, sum(new)::BIGINT AS new, sum(changed)::BIGINT AS changed
               FROM ops.batches GROUP BY ALL) USING (run_id, source)
    LEFT JOIN (SELECT run_id, source, count(*) AS calls, sum(units)::BIGINT AS units
               FROM ops.api_calls GROUP BY ALL) c USING (run_id, source)
    LEFT JOIN (SELECT run_id, source, {{'calls': calls, 'units': units}} AS full_refresh
               FROM ops.full_refreshes) f USING (run_id, source)
    ORDER BY number, list_position($sources, source)"""
CHECKED = f"""{RUNS}
    SELECT run_id, checkpoint, count(*) FILTER (success) AS passed,
        count(*) FILTER (NOT success AND severity = 'critical') AS critical,
        count(*) FILTER (NOT success AND severity = 'warning') AS warning,
        count(*) FILTER (NOT success AND severity NOT IN ('critical', 'warning')) AS info, run
    FROM ops.checkpoints JOIN runs USING (run_id)
    GROUP BY run_id, run, number, checkpoint ORDER BY number, checkpoint"""


def read(con: duckdb.DuckDBPyConnection, runs: Sequence[Mapping[str, Any]]) -> dict[str, list]:
    """The report's rows. `runs`: {"name", "run_id"} each."""
    from ledgerhouse.operate.commands.tables import rows

    ours = {"names": [r["name"] for r in runs], "ids": [r["run_id"] for r in runs]}
    fetched = [r["source"] for r in rows(con, "SELECT DISTINCT source FROM ops.batches ORDER BY 1")]
    return {
        "reconciliation": rows(con, RECONCILIATION),
        "fetched": rows(con, FETCHED, {**ours, "sources": fetched}),
        "checkpoints": rows(con, CHECKED, ours),
    }


def verdict(
    report: Mapping[str, Any],
    accounts: Sequence[tuple[str, str]],
    newest: str,
    stats: Mapping[str, Any],
    runs: Sequence[str],
    expected: Expectations,
) -> list[str]:
    """What is wrong, in sentences; empty when every balance is what the sandbox's truth says of it
    and the counts agree.

    `accounts`: (source, account) each; `newest`: the instant the last snapshot must be of;
    `stats`: the sandbox's own count of calls and units; `expected`: see stack.truth.
    """
    wrong = differences(report["reconciliation"], expected)
    for source, account in accounts:
        key, who = (source, account), f"{source} {account}"
        balances = [r for r in report["reconciliation"] if (r["source"], r["account"]) == key]
        if not balances:
            wrong.append(f"{who}: no balance is reconciled")
        late = [r["snapshot"] for r in balances if r["snapshot"] < newest]
        if late:
            wrong.append(f"{who}: the newest covered snapshot is of {late[0]}, not of {newest}")
    for run in runs:
        checks = [c for c in report["checkpoints"] if c["run"] == run]
        if not checks:
            wrong.append(f"{run}: no checkpoint was recorded")
        wrong += [
            f"{run}: {c['critical']} critical expectation(s) of {c['checkpoint']} failed"
            for c in checks
            if c["critical"]
        ]
    for source, total in stats["total"].items():
        calls = sum(f["calls"] for f in report["fetched"] if f["source"] == source)
        if calls != total:
            wrong.append(f"{source}: {calls} calls logged, the sandbox counted {total}")
    for source, spent in stats["units"].items():
        units = sum(f["units"] for f in report["fetched"] if f["source"] == source)
        if units != spent:
            wrong.append(f"{source}: {units} units logged, the sandbox counted {spent}")
    return wrong
