"""The balances of the accounts as `airflow warehouse status` and the demo show them: how many have
each status, and each that neither agrees nor is explained."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from ledgerhouse.operate.commands.tables import Answer, rows, short

if TYPE_CHECKING:
    import duckdb

BALANCES = """
    SELECT r.source, r.account, r.token, coalesce(a.symbol, r.token) AS symbol,
        coalesce(a.chain, '') AS chain,
        strftime(r.snapshot_ts, '%Y-%m-%dT%H:%M:%SZ') AS snapshot, r.computed_text AS computed,
        r.reported_text AS reported, r.difference_text AS difference, r.status, r.kind, r.reason,
        strftime(b.last_good_ts, '%Y-%m-%dT%H:%M:%SZ') AS last_good,
        strftime(b.first_bad_ts, '%Y-%m-%dT%H:%M:%SZ') AS first_bad
    FROM curated.reconciliation r
    LEFT JOIN curated.assets a ON a.token = r.token
    LEFT JOIN (SELECT source, account, token, min(first_bad_ts) AS first_bad_ts,
                   arg_min(last_good_ts, first_bad_ts) AS last_good_ts
               FROM ops.breaks WHERE suspect <> 'adjustment' GROUP BY ALL) b
        ON (b.source, b.account, b.token) = (r.source, r.account, r.token)
    ORDER BY r.source, r.account, r.token"""
STATUSES = (
    "exact", "within_tolerance", "explained", "settling", "awaiting_coverage", "not_reconcilable", "off"
)  # fmt: skip
DISAGREE = STATUSES[3:]
MOST = 6  # accounts that have a column of their own


def show_balances(
    con: duckdb.DuckDBPyConnection, answer: Answer, mine: Collection[tuple[str, str]]
) -> list[dict[str, Any]]:
    """Print the balances of `mine`, (source, account) each, by status, and those that disagree.

    Returns every one of them.
    """
    balances = [row for row in rows(con, BALANCES) if (row["source"], row["account"]) in mine]
    by_status: dict[str, Counter[str]] = defaultdict(Counter)
    for row in sorted(balances, key=lambda row: (STATUSES.index(row["status"]), row["kind"] or "")):
        label = row["status"] + (f": {row['kind']}" if row["kind"] else "")
        by_status[label][f"{row['source']} {row['account']}"] += 1
    names = [f"{source} {account}" for source, account in mine] if len(mine) <= MOST else []
    columns = {name: f"{name.split()[0]} {short(name.split(maxsplit=1)[1])}" for name in names}
    answer.table(
        "balances",
        "Balances reported by the vendor and computed from the history, by status",
        [
            {"status": label, "all": counts.total()}
            | {name: counts[name] or None for name in names}
            for label, counts in by_status.items()
        ],
        {"status": "status", **columns, "all": "all"},
        marked=lambda row: row["status"].startswith(("awaiting", "not_", "off")),
    )
    apart = [row for row in balances if row["status"] in DISAGREE]
    answer.document["disagree"] = apart
    for row in sorted(apart, key=lambda row: -STATUSES.index(row["status"])):
        answer.say(_sentence(row))
    return balances


def _sentence(row: Mapping[str, Any]) -> str:
    """By how much a balance is off, since when, and why."""
    asset = short(row["symbol"], 12) + (f" on {row['chain']}" if row["chain"] else "")
    began = f" between {row['last_good'] or 'the beginning'} and {row['first_bad']}"
    # One that cannot be held shows a difference of 0, or none: its reason says it.
    apart = f" by {row['difference']}" if row["difference"] not in (None, "0") else ""
    return (
        f"{row['source']} {short(row['account'])} {asset}: {row['status']}{apart}"
        f"{began if row['first_bad'] else ''}; {row['reason']}"
    )
