"""`airflow warehouse breaks`: where a balance went wrong, what may be the cause, and what to do."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from extract.core.interval import iso
from ledgerhouse.operate.commands.books import accounts, opened
from ledgerhouse.operate.commands.tables import rows
from ledgerhouse.publish.books import has

BREAKS = """
    SELECT b.source, b.account, b.token, coalesce(a.symbol, b.token) AS symbol, b.last_good_ts,
        b.first_bad_ts, b.last_bad_ts, b.step_text AS step, b.residual_text AS residual, b.suspect,
        b.suspect_ref, b.explanation, b.refetch_calls, b.refetch_units, b.found_at, b.wallet,
        c.since
    FROM ops.breaks b
    LEFT JOIN (SELECT token, any_value(symbol) AS symbol FROM curated.assets GROUP BY ALL) a
        USING (token)
    LEFT JOIN (SELECT source, account, min(start_ts) AS since FROM ops.coverage
               WHERE dataset NOT IN ('balances', 'positions') GROUP BY ALL) c USING (source, account)
    ORDER BY b.source, b.account, b.token, b.first_bad_ts"""
# Of which an entry of adjustments.toml would hide what can be read or repaired.
READ_AGAIN = ("unknown", "doubled", "sign", "unsettled", "vanished", "fee")
ENTRY = timedelta(seconds=1)  # what is read again ends behind the entry that shows a break


def breaks(args: Any) -> int:
    """Every break of the accounts meant, and entries of adjustments.toml that are refused; 1 where
    there is one."""
    with opened(args.output) as (con, answer):
        mine = accounts(con, args.source, args.account)
        found = rows(con, BREAKS) if has(con, "ops.breaks") else []
        refusals = [row for row in found if row["suspect"] == "adjustment"]
        lines = [
            row
            | {"refetch": _refetch(row), "block": _block(row) if row["wallet"] is None else None}
            for row in found
            if row["suspect"] != "adjustment" and (row["source"], row["account"]) in mine
        ]
        answer.table(
            "breaks",
            "Breaks: the window (last good, first bad], and by how much reported - computed changed",
            lines,
            {
                "source": "source",
                "account": "account",
                "symbol": "token",
                "wallet": "wallet",
                "last_good_ts": "last good",
                "first_bad_ts": "first bad",
                "step": "step",
                "suspect": "suspect",
                "suspect_ref": "row",
                "refetch_calls": "calls",
                "refetch_units": "units",
            },
            right=("step",),
        )
        answer.document["refused"] = [row["explanation"] for row in refusals]
        for row in lines:
            answer.say(f"\n{row['source']} {row['account']} {row['token']}: {row['explanation']}")
            if row["refetch"] and (row["wallet"] is not None or row["suspect"] in READ_AGAIN):
                answer.say(
                    f"read the window again ({row['refetch_calls']} calls, "
                    f"{row['refetch_units']} units): {row['refetch']}"
                )
            if row["block"]:
                answer.say("or, where you know what it was, in adjustments.toml:\n" + row["block"])
            else:
                answer.say(
                    "its account is held back until the running balances follow from each other again"
                )
        for row in refusals:
            answer.say(row["explanation"], style="bold red")
    return int(bool(lines or refusals))


def _refetch(row: Mapping[str, Any]) -> str | None:
    """The command that reads the window again; None where there is no window."""
    if row["refetch_calls"] is None:
        return None
    behind = timedelta(0) if row["wallet"] is None else ENTRY
    start, end = iso(row["last_good_ts"] or row["since"]), iso(row["first_bad_ts"] + behind)
    return (
        "airflow dags trigger sync --conf "
        f"'{json.dumps({'interval_start': start, 'interval_end': end, 'refetch': True})}'"
    )


def _block(row: Mapping[str, Any]) -> str:
    """An [[adjustment]] that explains the break, to be completed with its evidence."""
    window = (
        f"from = {iso(row['last_good_ts'])}\nto = {iso(row['first_bad_ts'])}"
        if row["last_good_ts"]
        else f"at = {iso(row['since'])}"
        if row["since"]
        else f"to = {iso(row['first_bad_ts'])}"
    )
    texts = {name: json.dumps(row[name]) for name in ("source", "account", "token", "step")}
    kind = {"opening": "opening", "gas": "l1_data_fee", "transfer": "migration"}
    return (
        f"[[adjustment]]\nsource = {texts['source']}\naccount = {texts['account']}\n"
        f"token = {texts['token']}\n{window}\namount = {texts['step']}\n"
        f'kind = "{kind.get(row["suspect"], "correction")}"\n'
        'evidence = "…"  # a URL, a transaction hash, or the digest of a file\n'
    )
