"""What the demo shows: do the books reconcile, what did it cost, what did the checks say.

`read` takes everything out of the warehouse as plain rows (they go into demo.json too), and
`verdict` judges them; `tables.show` prints them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

DEBANK_PAGE, COINBASE_PAGE = 20, 100

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


def full_refresh(
    con, clock: datetime, accounts_pages: int, units: Mapping[str, Mapping[str, int]]
) -> dict[str, dict[str, int]]:
    """Calls and units, by source, of reading everything again with the vendor's clock at `clock`.

    The same endpoints and page sizes as ours, over what the vendor had by then: DeBank, for each
    wallet, ceil((transactions + 1) / 20) pages and one list of tokens; Coinbase the pages of
    accounts (`accounts_pages`, counted), for each wallet max(1, ceil(rows / 100)) pages, and
    ceil((fills + 1) / 100) pages of fills.
    """
    known = "first_seen_at <= ?"
    at = clock.replace(tzinfo=None)

    def counts(sql: str) -> list[int]:
        return [count for (count,) in con.execute(sql, [at]).fetchall()]

    transactions = counts(f"""SELECT count(t.tx_id) FROM
        (SELECT DISTINCT account FROM ops.coverage WHERE source = 'debank') a LEFT JOIN
        (FROM raw.onchain_transactions WHERE source = 'debank' AND {known}) t USING (account)
        GROUP BY a.account""")
    history = sum(math.ceil((count + 1) / DEBANK_PAGE) for count in transactions)
    wallets = counts(f"""SELECT count(l.entry_id) FROM
        (SELECT DISTINCT account, wallet FROM raw.balances WHERE source = 'coinbase') w LEFT JOIN
        (FROM raw.exchanges_ledger WHERE source = 'coinbase' AND {known}) l
        USING (account, wallet) GROUP BY w.account, w.wallet""")
    fills = counts(f"""SELECT count(*) FROM raw.exchanges_trades
        WHERE source = 'coinbase' AND {known} GROUP BY account""") or [0]
    coinbase = (
        accounts_pages + sum(max(1, math.ceil(count / COINBASE_PAGE)) for count in wallets)
        + sum(math.ceil((count + 1) / COINBASE_PAGE) for count in fills)
    )
    price = units["debank"]
    return {
        "debank": {
            "calls": history + len(transactions),
            "units": history * price["/v1/user/all_history_list"]
            + len(transactions) * price["/v1/user/all_token_list"],
        },
        "coinbase": {"calls": coinbase, "units": 0},
    }


def read(con, runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The report's rows. `runs`: {"name", "run_id", "clock": the vendor's, "sync": bool} each."""
    from extract.sources import all_sources

    units = {name: source.units for name, source in all_sources().items()}
    loaded = {(r["run_id"], r["source"]): r for r in rows(con, LOADED)}
    called = {(r["run_id"], r["source"]): r for r in rows(con, CALLED)}
    fetched = []
    for run in runs:
        full = {}
        if run["sync"]:
            (pages,) = con.execute(
                "SELECT count(*) FROM ops.api_calls WHERE run_id = ? AND endpoint = '/v2/accounts'",
                [run["run_id"]],
            ).fetchone()
            full = full_refresh(con, run["clock"], pages, units)
        for source in sorted(units):
            key = (run["run_id"], source)
            ours = {"calls": 0, "units": 0, "new": 0, "changed": 0}
            ours |= {k: v for k, v in {**loaded.get(key, {}), **called.get(key, {})}.items()
                     if k in ours}
            fetched.append({"run": run["name"], "source": source, **ours,
                            "full_refresh": full.get(source)})
    names = {run["run_id"]: run["name"] for run in runs}
    checked = [{**r, "run": names[r["run_id"]]} for r in rows(con, CHECKED)
               if r["run_id"] in names]
    order = list(names.values())
    checked.sort(key=lambda r: (order.index(r["run"]), r["checkpoint"]))
    return {
        "reconciliation": rows(con, RECONCILIATION), "fetched": fetched, "checkpoints": checked,
    }


def verdict(
    report: Mapping[str, Any], accounts: Sequence[tuple[str, str]], newest: str,
    stats: Mapping[str, Any], runs: Sequence[str],
) -> list[str]:
    """What is wrong, in sentences; empty when every account reconciles and the counts agree.

    `accounts`: (source, account) each; `newest`: the instant the last snapshot must be of;
    `stats`: the sandbox's own count of calls and units.
    """
    wrong = []
    for source, account in accounts:
        mine = [r for r in report["reconciliation"] if (r["source"], r["account"]) ==
                (source, account)]
        if not any(r["status"] == "reconciled" for r in mine):
            wrong.append(f"{source} {account}: no reconciled balance")
        wrong += [f"{source} {account}: {r['symbol']} is {r['status']}, difference "
                  f"{r['difference']}" for r in mine if r["status"] != "reconciled"]
        if any(r["snapshot"] < newest for r in mine):
            wrong.append(f"{source} {account}: the newest covered snapshot is of "
                         f"{mine[0]['snapshot']}, not of {newest}")
    for run in runs:
        mine = [c for c in report["checkpoints"] if c["run"] == run]
        if not mine:
            wrong.append(f"{run}: no checkpoint was recorded")
        wrong += [f"{run}: {c['critical']} critical expectation(s) of {c['checkpoint']} failed"
                  for c in mine if c["critical"]]
    for source, total in stats["total"].items():
        ours = sum(f["calls"] for f in report["fetched"] if f["source"] == source)
        if ours != total:
            wrong.append(f"{source}: {ours} calls logged, the sandbox counted {total}")
    units = sum(f["units"] for f in report["fetched"])
    if units != stats["units_spent"]:
        wrong.append(f"debank: {units} units logged, the sandbox counted {stats['units_spent']}")
    return wrong
