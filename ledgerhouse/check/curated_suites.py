"""Expectations of the curated tables: mostly comparisons with the table each is made from.

A curated row that lost its `ts`, which the date filter excludes, is missed by `entries_complete`
or `legs_complete`.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from ledgerhouse.check.date_filter import DateFilter, literal
from ledgerhouse.check.expectations import KINDS, among, at_least, no_rows, present, unique

PAIRED_WITHIN = "INTERVAL 1 DAY"  # the two entries of a conversion
WRAPPED_WITHIN = "INTERVAL 1 MINUTE"  # those of a wrap, which have no id in common
STATUSES = (
    "exact",
    "within_tolerance",
    "explained",
    "settling",
    "off",
    "awaiting_coverage",
    "not_reconcilable",
)
AWAITED_FOR = timedelta(days=7)  # reported balances still without the history behind them


def unified(dates: DateFilter) -> list[Any]:
    """Every movement of every account against raw entries, transfers and gas."""
    entries = f"(SELECT *, entry_id AS txid FROM {dates.rows('raw.exchanges_ledger')})"
    transfers = dates.rows("raw.onchain_transfers")
    legs = f"""(
        SELECT source, account, chain, tx_id AS txid, ts, concat(direction, ':', leg) AS leg
        FROM {transfers}
        UNION ALL SELECT source, account, chain, tx_id, ts, 'gas'
        FROM {dates.rows("raw.onchain_transactions")}
        WHERE pays_gas AND (gas > 0 OR (gas IS NULL AND gas_text IS NOT NULL)))"""
    adjustments = (
        "(SELECT *, '' AS chain, adjustment_id AS txid, 'entry' AS leg "
        f"FROM {dates.rows('raw.adjustments')})"
    )
    entry, leg = "source, account, txid, ts", "source, account, chain, txid, leg, ts"
    # SUM of DECIMAL(38,18) raises past 1e20: whole and fractional parts are summed apart.
    sums = (
        "sum(CAST(trunc(amount) AS DECIMAL(20, 0))) AS whole, "
        "sum(CAST(amount - trunc(amount) AS DECIMAL(18, 18))) AS fraction"
    )
    return [
        unique("domain", "source", "account", "chain", "txid", "leg"),
        among("domain", ("exchange", "onchain", "adjustment")),
        present("kind"),
        no_rows(
            "kind_known",
            "critical",
            f"kind is one of {', '.join(KINDS)} or nft; an adjustment may have its own",
            "SELECT domain, source, account, txid, leg, kind FROM {batch} WHERE "
            f"domain <> 'adjustment' AND kind NOT IN {(*KINDS, 'nft')}",
        ),
        present("token", "warning"),
        present("counts"),
        no_rows(
            "entries_complete",
            "critical",
            "Every ledger entry is there, at its time",
            f"SELECT {entry} FROM {entries} ANTI JOIN (SELECT * FROM {{batch}} "
            f"WHERE domain = 'exchange') USING ({entry})",
        ),
        no_rows(
            "legs_complete",
            "critical",
            "Every transfer and every gas paid is there",
            f"SELECT {leg} FROM {legs} ANTI JOIN (SELECT * FROM {{batch}} "
            f"WHERE domain = 'onchain') USING ({leg})",
        ),
        no_rows(
            "nothing_invented",
            "critical",
            "Every row comes from a ledger entry, a leg or an adjustment",
            f"SELECT domain, {leg} FROM (SELECT * FROM {{batch}} WHERE domain = 'exchange') "
            f"ANTI JOIN {entries} USING ({entry}) UNION ALL SELECT domain, {leg} FROM "
            f"(SELECT * FROM {{batch}} WHERE domain NOT IN ('exchange', 'adjustment')) ANTI JOIN {legs} "
            f"USING ({leg}) UNION ALL SELECT domain, {leg} FROM "
            f"(SELECT * FROM {{batch}} WHERE domain = 'adjustment') "
            f"ANTI JOIN {adjustments} USING ({leg}, amount_text)",
        ),
        no_rows(
            "adjustments_complete",
            "critical",
            "Every adjustment is there, at its time, with its amount",
            f"SELECT {leg}, amount_text FROM {adjustments} ANTI JOIN (SELECT * FROM {{batch}} "
            f"WHERE domain = 'adjustment') USING ({leg}, amount_text, token)",
        ),
        no_rows(
            "exchange_sums_kept",
            "critical",
            "Settled ledger entries sum to the same per token as in raw",
            f"""SELECT source, account, token, w.whole AS raw_whole, w.fraction AS raw_fraction,
                        u.whole, u.fraction
             FROM (SELECT source, account, coalesce(asset, '') AS token, {sums}
                   FROM {entries} WHERE is_settled AND vanished_at IS NULL
                     AND amount IS NOT NULL GROUP BY ALL) w
             FULL JOIN (SELECT source, account, coalesce(token, '') AS token, {sums}
                        FROM {{batch}} WHERE domain = 'exchange' AND counts GROUP BY ALL) u
             USING (source, account, token)
             WHERE w.whole IS DISTINCT FROM u.whole OR w.fraction IS DISTINCT FROM u.fraction""",
        ),
        no_rows(
            "transfer_amounts_kept",
            "critical",
            "A transfer keeps its amount (to the token's decimals) and its direction's sign",
            f"""SELECT u.source, u.account, u.chain, u.txid, u.leg, u.amount, t.amount AS raw
             FROM {{batch}} u JOIN {transfers} t
               ON t.source = u.source AND t.account = u.account AND t.chain = u.chain
               AND t.tx_id = u.txid AND concat(t.direction, ':', t.leg) = u.leg
             LEFT JOIN raw.onchain_tokens k ON k.source = t.source AND k.chain = t.chain
               AND k.token = t.token
             WHERE u.domain = 'onchain' AND ((t.amount IS NULL AND u.amount IS NOT NULL)
               OR (u.amount IS NULL AND t.amount IS NOT NULL AND NOT u.is_overflow)
               OR abs(CASE t.direction WHEN 'in' THEN u.amount ELSE -u.amount END - t.amount)
                  > 0.500001 * power(10, -least(coalesce(k.decimals, 18), 18)))""",
        ),
        no_rows(
            "only_final_known_amounts_count",
            "critical",
            "Pending, failed, scam, NFT and overflowing legs do not count; all others do",
            "SELECT domain, source, account, txid, leg, amount FROM {batch} WHERE counts "
            "IS DISTINCT FROM (is_settled AND NOT is_scam AND amount IS NOT NULL "
            "AND coalesce(kind, '') <> 'nft')",
        ),
        no_rows(
            "amounts_fit",
            "warning",
            "No leg is left out because its amount overflows",
            "SELECT domain, source, account, chain, txid, leg, amount_text FROM {batch} "
            "WHERE is_overflow AND NOT is_scam",
        ),
        no_rows(
            "conversions_paired",
            "warning",
            "A conversion gives one asset and takes another",
            f"""WITH o AS (
               SELECT *, starts_with(amount_text, '-') AS gives FROM curated.tx_unified
               WHERE {dates.within("ts", PAIRED_WITHIN)} AND domain = 'exchange'
                 AND kind = 'conversion')
             SELECT c.source, c.account, c.txid, c.ref, c.token, c.amount_text
             FROM {{batch}} c
             ANTI JOIN o ON o.source = c.source AND o.account = c.account AND o.ref = c.ref
               AND o.txid <> c.txid AND o.gives <> starts_with(c.amount_text, '-')
             ANTI JOIN (SELECT * FROM o WHERE ref IS NULL) n  -- wraps share nothing but their time
               ON c.ref IS NULL AND n.source = c.source AND n.account = c.account
               AND n.token <> c.token AND n.gives <> starts_with(c.amount_text, '-')
               AND n.ts BETWEEN c.ts - {WRAPPED_WITHIN} AND c.ts + {WRAPPED_WITHIN}
             WHERE c.domain = 'exchange' AND c.kind = 'conversion' AND c.is_settled""",
        ),
    ]


def flows(dates: DateFilter) -> list[Any]:
    """Every day's flows against the movements they sum."""
    key = "date, domain, source, account, token"

    # A flow is of a whole day.
    transactions = (
        dates.rows("curated.tx_unified")
        if dates.scattered and dates.whole_days
        else (f"curated.tx_unified WHERE {dates.within_days('ts', 'TIMESTAMP')}")
    )

    def sums(name: str, amount: str) -> str:  # whole and fractional parts, as in the model
        counted = f"FILTER (WHERE counts AND {amount} > 0)"
        return (
            f"coalesce(sum(CAST(trunc({amount}) AS DECIMAL(20, 0))) {counted}, 0) "
            f"AS {name}_whole, coalesce(sum(CAST({amount} - trunc({amount}) AS "
            f"DECIMAL(18, 18))) {counted}, 0) AS {name}_part"
        )

    def total(name: str) -> str:  # NULL where it overflows
        return (
            f"TRY(CAST({name}_whole AS DECIMAL(38, 18)) + "
            f"CAST({name}_part AS DECIMAL(38, 18))) AS {name}"
        )

    return [
        unique(*key.split(", ")),
        at_least("inflow", 0),
        at_least("outflow", 0),
        no_rows(
            "net_adds_up",
            "critical",
            "net is inflow - outflow, turnover their sum",
            f"SELECT {key}, inflow, outflow, net, turnover FROM {{batch}} "
            "WHERE net IS DISTINCT FROM TRY(inflow - outflow) "
            "OR turnover IS DISTINCT FROM TRY(inflow + outflow)",
        ),
        no_rows(
            "equal_transactions",
            "critical",
            "Flows are the sums of the legs that count",
            f"""SELECT {key}, f.inflow, f.outflow, f.legs, u.gained, u.given,
                        u.legs AS legs_there
             FROM {{batch}} f FULL JOIN (
               SELECT {key}, {total("gained")}, {total("given")}, legs FROM (
                 SELECT CAST(ts AS DATE) AS date, CASE WHEN domain <> 'adjustment' THEN domain
                     WHEN contains(token, ':') THEN 'onchain' ELSE 'exchange' END AS domain,
                   source, account, coalesce(token, '') AS token, count(*) FILTER (WHERE counts) AS legs,
                   {sums("gained", "amount")}, {sums("given", "-amount")}
                 FROM {transactions} GROUP BY ALL)) u
             USING ({key})
             WHERE f.inflow IS DISTINCT FROM u.gained OR f.outflow IS DISTINCT FROM u.given
               OR f.legs IS DISTINCT FROM u.legs""",
        ),
    ]


def daily(dates: DateFilter) -> list[Any]:
    """Every day's balances against the flows that move them."""
    key = "date, domain, source, account, token"
    return [
        unique(*key.split(", ")),
        no_rows(
            "no_negative_balance",
            "warning",
            "No balance is below zero (or history before it is missing)",
            f"SELECT {key}, balance, balance_wide FROM {{batch}} "
            "WHERE balance < 0 OR (balance IS NULL AND balance_wide < 0)",
        ),
        no_rows(
            "flows_carried",
            "critical",
            "Every flow moved a balance, by as much",
            f"""SELECT {key}, f.net AS flow, d.net FROM {{batch}} d RIGHT JOIN (
               FROM {dates.rows("curated.daily_flows")} WHERE legs + overflow_legs > 0) f USING ({key})
             WHERE d.source IS NULL OR f.net IS DISTINCT FROM d.net""",
        ),
        no_rows(
            "balance_moves_by_net",
            "critical",
            "From day to day a balance moves by the net flow",
            f"""SELECT {key}, before, net, balance FROM (
               SELECT *, lag(balance) OVER token AS before, lag(date) OVER token AS day_before
               FROM {{batch}}
               WINDOW token AS (PARTITION BY domain, source, account, token ORDER BY date))
             WHERE day_before >= date - 1 AND balance <> TRY(before + net)""",
        ),
    ]


def reconciliation(dates: DateFilter) -> list[Any]:
    """Computed balances against those that the sources report."""
    old = literal(dates.interval.end - AWAITED_FOR)
    columns = (
        "source, account, token, snapshot_ts, reported_text, computed_text, difference_text, "
        "tolerance"
    )
    return [
        unique("source", "account", "token"),
        present("status"),
        among("status", STATUSES),
        no_rows(
            "balances_reconcile",
            "warning",
            "Computed balances equal the reported ones, or it is explained why not",
            f"SELECT {columns} FROM {{batch}} WHERE status = 'off'",
        ),
        no_rows(
            "coverage_awaited_briefly",
            "info",
            f"No reported balance waits over {AWAITED_FOR.days} days for its history",
            f"SELECT {columns} FROM {{batch}} WHERE status = 'awaiting_coverage' "
            f"AND snapshot_ts < {old}",
        ),
        no_rows(
            "adjustments_apply",
            "warning",
            "Every entry of adjustments.toml explains a difference",
            "SELECT source, account, token, explanation FROM ops.breaks "
            "WHERE suspect = 'adjustment' "
            "AND (source, account) IN (SELECT (source, account) FROM {batch})",
        ),
    ]


def assets(dates: DateFilter) -> list[Any]:
    """The description of every token that moved."""
    return [
        unique("token"),
        present("token"),
        no_rows(
            "tokens_described",
            "info",
            "What moved is described in assets",
            f"SELECT DISTINCT u.token FROM {dates.rows('curated.tx_unified')} u "
            "ANTI JOIN {batch} a ON a.token = u.token WHERE NOT u.is_scam",
        ),
    ]
