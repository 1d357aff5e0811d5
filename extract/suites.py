"""What every table is expected to hold: one suite a table, bounded to an interval.

Raw suites judge what a source delivered; curated suites judge what the transform made of it, so
most of those are comparisons with the table before it. Native expectations where Great
Expectations has one for DuckDB; otherwise SQL that selects the rows breaking the law (`{batch}`
is the bounded table; double braces in regular expressions).

No expectation can tell a NULL `ts` (the bounds exclude it): raw tables declare it NOT NULL, and
a curated row that lost its `ts` is missed by `entries_complete` or `legs_complete`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import time, timedelta
from typing import Any

from extract.datasets import DATASETS
from extract.source import UTC, Interval

KINDS = ("trade", "deposit", "withdrawal", "conversion", "reward", "transfer", "fee", "unknown")
TX_ID = "0x[0-9a-fA-F]{{64}}"
CLOCK_SKEW = "INTERVAL 1 HOUR"      # vendors' clocks against each other
PAIRED_WITHIN = "INTERVAL 1 DAY"    # the two entries of a conversion
AWAITED_FOR = timedelta(days=7)     # reported balances still without the history behind them


@dataclass(frozen=True)
class Suite:
    """The expectations of one table over `query`, each with its name in `meta`.

    The rows of `query` are computed once and `kept` for the run where each look would cost: at 4M
    transactions one at daily_balances takes 0.4 s, and every expectation looks two or three times.
    `settings` are the variables it reads: it computes no balances from before they are looked at.
    """

    table: str
    query: str
    expectations: Sequence[Any]
    kept: bool = False
    settings: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Bounds:
    """SQL conditions that keep a query within an interval, and within the days it touches.

    Where `spans` are given, disjoint parts of the interval, only they are looked at: 20 late days
    of ten years are 20 days.
    """

    interval: Interval
    spans: tuple[Interval, ...] = ()

    def __str__(self) -> str:
        return self.of("ts")

    @property
    def scattered(self) -> bool:
        """Each look at a table would pass over all that lies between the spans."""
        return len(self.spans) > 1

    @property
    def whole_days(self) -> bool:
        return all(edge.astimezone(UTC).time() == time.min
                   for span in self.spans for edge in (span.start, span.end))

    def query(self, table: str) -> str:
        """The rows of a table, range by range: zone maps help a range, not an OR of ranges."""
        def where(part: Bounds) -> str:
            return part.days("date") if table == "curated.daily_flows" else str(part)

        parts = [Bounds(span) for span in self.spans] if self.scattered else [self]
        return " UNION ALL ".join(f"SELECT * FROM {table} WHERE {where(part)}" for part in parts)

    def rows(self, table: str) -> str:
        """The same for another suite's query: those kept for the table, where they are."""
        return f"(FROM {kept_name(table)})" if self.scattered else f"({self.query(table)})"

    def of(self, column: str, slack: str = "INTERVAL 0 SECOND") -> str:
        return self._within(column, lambda span: (
            f"{_literal(span.start)} - {slack}", f"{_literal(span.end)} + {slack}"))

    def days(self, column: str, kind: str = "DATE") -> str:
        def ends(span: Interval) -> tuple[str, str]:
            last = (span.end - timedelta(microseconds=1)).date()
            return f"{kind} '{span.start.date()}'", f"{kind} '{last + timedelta(days=1)}'"

        return self._within(column, ends)

    def _within(self, column: str, ends: Callable[[Interval], tuple[str, str]]) -> str:
        def between(span: Interval) -> str:
            start, end = ends(span)
            return f"{column} >= {start} AND {column} < {end}"

        if not self.scattered:
            return between(self.interval)
        # The whole first: it alone lets zone maps skip what lies outside.
        return f"({between(self.interval)} AND ({' OR '.join(map(between, self.spans))}))"


def _literal(moment) -> str:
    return f"TIMESTAMP '{moment.astimezone(UTC).replace(tzinfo=None)}'"


def kept_name(table: str) -> str:
    """The temporary table of the rows that are kept of a table."""
    return "checked_" + table.replace(".", "_")


def suites(interval: Interval, spans: Sequence[Interval] = ()) -> list[Suite]:
    """Every suite, bounded to `interval` (of that to `spans`, where there are several); raw first,
    in the order data flows."""
    b = Bounds(interval, tuple(spans))
    raw = {"exchanges_ledger": _ledger, "exchanges_trades": _trades,
           "onchain_transactions": _transactions, "onchain_transfers": _transfers,
           "balances": _balances}
    return [
        *(Suite(f"raw.{name}", b.query(f"raw.{name}"), expect(b), b.scattered)
          for name, expect in raw.items()),
        Suite("curated.tx_unified", b.query("curated.tx_unified"), _unified(b), b.scattered),
        Suite("curated.daily_flows", b.query("curated.daily_flows"), _flows(b), b.scattered),
        Suite("curated.daily_balances",
              f"SELECT * FROM curated.daily_balances WHERE {b.days('date')}", _daily(b), kept=True,
              settings={"balances_since": f"DATE '{interval.start.date()}'"}),
        Suite("curated.reconciliation", "SELECT * FROM curated.reconciliation",
              _reconciliation(b), kept=True),
        Suite("curated.assets", "SELECT * FROM curated.assets", _assets(b)),
    ]


def _rows(name: str, severity: str, says: str, query: str):
    """No row is selected by `query`; what is selected is quoted as text: no amount is rounded."""
    import great_expectations.expectations as gxe

    return gxe.UnexpectedRowsExpectation(
        unexpected_rows_query=f"SELECT CAST(COLUMNS(*) AS VARCHAR) FROM ({query})",
        severity=severity, description=f"{says} — {severity}", meta={"name": name})


def _native(kind: str, name: str, severity: str, says: str, **arguments):
    """Great Expectations' own Expect<kind>."""
    import great_expectations.expectations as gxe

    return getattr(gxe, f"Expect{kind}")(
        severity=severity, description=f"{says} — {severity}", meta={"name": name}, **arguments)


def _unique(*columns: str):
    says = f"One row per ({', '.join(columns)})"
    if len(columns) == 1:
        return _native("ColumnValuesToBeUnique", "keys_unique", "critical", says,
                       column=columns[0])
    return _native("CompoundColumnsToBeUnique", "keys_unique", "critical", says,
                   column_list=list(columns))


def _present(column: str, severity: str = "critical"):
    return _native("ColumnValuesToNotBeNull", f"{column}_present", severity,
                   f"Every row has its {column}", column=column)


def _among(column: str, values: Sequence, severity: str = "critical"):
    return _native("ColumnValuesToBeInSet", f"{column}_known", severity,
                   f"{column} is one of {', '.join(map(str, values))}",
                   column=column, value_set=list(values))


def _at_least(column: str, least: int, *, strict: bool = False):
    return _native("ColumnValuesToBeBetween", f"{column}_in_range", "critical",
                   f"{column} is {'above' if strict else 'at least'} {least}",
                   column=column, min_value=least, strict_min=strict)


def _fits(dataset: str):
    """Every amount whose text is there fits DECIMAL(38,18)."""
    names = [c.name for c in DATASETS[dataset].columns]
    money = [n for n in names if f"{n}_text" in names]
    key = ", ".join(DATASETS[dataset].key)
    texts = ", ".join(f"{n}_text" for n in money)
    return _rows(
        "amounts_fit", "warning",
        "Amounts fit DECIMAL(38,18); the others keep their text, are flagged and do not count",
        f"SELECT {key}, {texts} FROM {{batch}} WHERE "
        + " OR ".join(f"({n}_text IS NOT NULL AND {n} IS NULL)" for n in money))


def _raw(dataset: str) -> list:
    """What every raw table owes: its key once, a batch on record, no rows from the future."""
    key = ", ".join(DATASETS[dataset].key)
    return [
        _unique(*DATASETS[dataset].key),
        _rows("batch_known", "warning", "Every row names a load on record in ops.batches",
              f"SELECT {key}, batch_id FROM {{batch}} ANTI JOIN ops.batches USING (batch_id)"),
        _rows("versions_in_order", "critical", "A version is not older than its row",
              f"SELECT {key}, first_seen_at, changed_at FROM {{batch}} "
              "WHERE changed_at < first_seen_at"),
        _rows("no_future", "warning", "Nothing was met before it happened",
              f"SELECT {key}, ts, changed_at FROM {{batch}} WHERE ts > changed_at + {CLOCK_SKEW}"),
        _fits(dataset),
        *([_rows("nothing_vanished", "warning", "The vendor still lists what it once listed",
                 f"SELECT {key}, ts, vanished_at FROM {{batch}} WHERE vanished_at IS NOT NULL")]
          if DATASETS[dataset].has_history else []),
    ]


def _ledger(b: Bounds) -> list:
    return [
        *_raw("exchanges_ledger"),
        _present("entry_id"), _present("asset"), _present("kind"), _present("is_settled"),
        _among("kind", KINDS),
        _native("ColumnValuesToNotBeInSet", "kind_understood", "warning",
                "The exchange's type is one we know; an unknown one counts into balances all the "
                "same", column="kind", value_set=["unknown"]),
        _rows("settled_entries_have_amounts", "critical", "A settled entry says how much it moved",
              "SELECT source, account, entry_id, type FROM {batch} "
              "WHERE is_settled AND amount_text IS NULL"),
    ]


def _trades(b: Bounds) -> list:
    return [
        *_raw("exchanges_trades"),
        _present("side"), _among("side", ("buy", "sell")),
        _present("price_text"), _at_least("price", 0, strict=True), _at_least("amount", 0),
    ]


def _transactions(b: Bounds) -> list:
    return [
        *_raw("onchain_transactions"),
        _rows("tx_id_well_formed", "critical", "A transaction hash is 0x and 64 hex digits",
              "SELECT source, account, chain, tx_id FROM {batch} "
              f"WHERE NOT regexp_full_match(tx_id, '{TX_ID}')"),
        _among("status", (0, 1)),  # NULL is legal: not a transaction of its own
        _at_least("gas", 0),
        _rows("gas_told", "info", "The source says what the account's own transactions cost",
              "SELECT source, account, chain, tx_id FROM {batch} "
              "WHERE pays_gas AND gas_text IS NULL"),
    ]


def _transfers(b: Bounds) -> list:
    return [
        *_raw("onchain_transfers"),
        _rows("tx_id_well_formed", "critical", "A transaction hash is 0x and 64 hex digits",
              "SELECT source, account, chain, tx_id FROM {batch} "
              f"WHERE NOT regexp_full_match(tx_id, '{TX_ID}')"),
        _present("token"), _present("amount_text"), _present("direction"),
        _among("direction", ("in", "out")), _at_least("leg", 1), _at_least("amount", 0),
        _rows("legs_without_gaps", "critical", "Legs of a direction are numbered 1, 2, … n",
              "SELECT source, account, chain, tx_id, direction, count(*) AS legs, "
              "max(leg) AS last FROM {batch} GROUP BY ALL HAVING max(leg) <> count(*)"),
        _rows("transaction_there", "critical", "Every transfer has its transaction, at its time",
              "SELECT t.source, t.account, t.chain, t.tx_id, t.ts FROM {batch} t "
              f"ANTI JOIN {b.rows('raw.onchain_transactions')} x "
              "USING (source, account, chain, tx_id, ts)"),
    ]


def _balances(b: Bounds) -> list:
    return [*_raw("balances"), _present("amount_text"), _at_least("amount", 0)]


def _unified(b: Bounds) -> list:
    entries = f"(SELECT *, entry_id AS txid FROM {b.rows('raw.exchanges_ledger')})"
    transfers = b.rows("raw.onchain_transfers")
    legs = f"""(
        SELECT source, account, chain, tx_id AS txid, ts, concat(direction, ':', leg) AS leg
        FROM {transfers}
        UNION ALL SELECT source, account, chain, tx_id, ts, 'gas'
        FROM {b.rows('raw.onchain_transactions')}
        WHERE pays_gas AND (gas > 0 OR (gas IS NULL AND gas_text IS NOT NULL)))"""
    entry, leg = "source, account, txid, ts", "source, account, chain, txid, leg, ts"
    # SUM of DECIMAL(38,18) raises past 1e20: whole and fractional parts are summed apart.
    sums = ("sum(CAST(trunc(amount) AS DECIMAL(20, 0))) AS whole, "
            "sum(CAST(amount - trunc(amount) AS DECIMAL(18, 18))) AS fraction")
    return [
        _unique("domain", "source", "account", "chain", "txid", "leg"),
        _among("domain", ("exchange", "onchain")), _present("kind"), _among("kind", KINDS),
        _present("token"), _present("counts"),
        _rows("entries_complete", "critical", "Every ledger entry is there, at its time",
              f"SELECT {entry} FROM {entries} ANTI JOIN (SELECT * FROM {{batch}} "
              f"WHERE domain = 'exchange') USING ({entry})"),
        _rows("legs_complete", "critical", "Every transfer and every gas paid is there",
              f"SELECT {leg} FROM {legs} ANTI JOIN (SELECT * FROM {{batch}} "
              f"WHERE domain = 'onchain') USING ({leg})"),
        _rows("nothing_invented", "critical", "Every row comes from a ledger entry or a leg",
              f"SELECT domain, {leg} FROM (SELECT * FROM {{batch}} WHERE domain = 'exchange') "
              f"ANTI JOIN {entries} USING ({entry}) UNION ALL SELECT domain, {leg} FROM "
              f"(SELECT * FROM {{batch}} WHERE domain <> 'exchange') ANTI JOIN {legs} "
              f"USING ({leg})"),
        _rows("exchange_sums_kept", "critical",
              "Settled ledger entries sum to the same per token as in raw",
              f"""SELECT source, account, token, w.whole AS raw_whole, w.fraction AS raw_fraction,
                         u.whole, u.fraction
              FROM (SELECT source, account, coalesce(asset, '') AS token, {sums}
                    FROM {entries} WHERE is_settled AND vanished_at IS NULL
                      AND amount IS NOT NULL GROUP BY ALL) w
              FULL JOIN (SELECT source, account, coalesce(token, '') AS token, {sums}
                         FROM {{batch}} WHERE domain = 'exchange' AND counts GROUP BY ALL) u
              USING (source, account, token)
              WHERE w.whole IS DISTINCT FROM u.whole OR w.fraction IS DISTINCT FROM u.fraction"""),
        _rows("transfer_amounts_kept", "critical",
              "A transfer keeps its amount (to the token's decimals) and its direction's sign",
              f"""SELECT u.source, u.account, u.chain, u.txid, u.leg, u.amount, t.amount AS raw
              FROM {{batch}} u JOIN {transfers} t
                ON t.source = u.source AND t.account = u.account AND t.chain = u.chain
                AND t.tx_id = u.txid AND concat(t.direction, ':', t.leg) = u.leg
              LEFT JOIN raw.onchain_tokens k ON k.source = t.source AND k.chain = t.chain
                AND k.token = t.token
              WHERE u.domain = 'onchain' AND ((t.amount IS NULL AND u.amount IS NOT NULL)
                OR (u.amount IS NULL AND NOT u.is_overflow)
                OR abs(CASE t.direction WHEN 'in' THEN u.amount ELSE -u.amount END - t.amount)
                   > 0.500001 * power(10, -least(coalesce(k.decimals, 18), 18)))"""),
        _rows("only_final_known_amounts_count", "critical",
              "Pending, failed, scam and overflowing legs do not count; all others do",
              "SELECT domain, source, account, txid, leg, amount FROM {batch} WHERE counts "
              "IS DISTINCT FROM (is_settled AND NOT is_scam AND amount IS NOT NULL)"),
        _rows("amounts_fit", "warning", "No leg is left out because its amount overflows",
              "SELECT domain, source, account, chain, txid, leg, amount_text FROM {batch} "
              "WHERE is_overflow AND NOT is_scam"),
        _rows("conversions_paired", "warning", "A conversion gives one asset and takes another",
              f"""SELECT c.source, c.account, c.txid, c.ref, c.token, c.amount_text
              FROM {{batch}} c ANTI JOIN (
                SELECT * FROM curated.tx_unified WHERE {b.of('ts', PAIRED_WITHIN)}) o
              ON o.domain = 'exchange' AND o.kind = 'conversion' AND o.source = c.source
                AND o.account = c.account AND o.ref = c.ref AND o.txid <> c.txid
                AND starts_with(o.amount_text, '-') <> starts_with(c.amount_text, '-')
              WHERE c.domain = 'exchange' AND c.kind = 'conversion' AND c.is_settled"""),
    ]


def _flows(b: Bounds) -> list:
    key = "date, domain, source, account, token"

    # A flow is of a whole day.
    transactions = b.rows("curated.tx_unified") if b.scattered and b.whole_days else (
        f"curated.tx_unified WHERE {b.days('ts', 'TIMESTAMP')}")

    def sums(name: str, amount: str) -> str:  # whole and fractional parts, as in the model
        counted = f"FILTER (WHERE counts AND {amount} > 0)"
        return (f"coalesce(sum(CAST(trunc({amount}) AS DECIMAL(20, 0))) {counted}, 0) "
                f"AS {name}_whole, coalesce(sum(CAST({amount} - trunc({amount}) AS "
                f"DECIMAL(18, 18))) {counted}, 0) AS {name}_part")

    def total(name: str) -> str:  # NULL where it overflows
        return (f"TRY(CAST({name}_whole AS DECIMAL(38, 18)) + "
                f"CAST({name}_part AS DECIMAL(38, 18))) AS {name}")

    return [
        _unique(*key.split(", ")),
        _at_least("inflow", 0), _at_least("outflow", 0),
        _rows("net_adds_up", "critical", "net is inflow - outflow, turnover their sum",
              f"SELECT {key}, inflow, outflow, net, turnover FROM {{batch}} "
              "WHERE net IS DISTINCT FROM TRY(inflow - outflow) "
              "OR turnover IS DISTINCT FROM TRY(inflow + outflow)"),
        _rows("equal_transactions", "critical", "Flows are the sums of the legs that count",
              f"""SELECT {key}, f.inflow, f.outflow, f.legs, u.gained, u.given,
                         u.legs AS legs_there
              FROM {{batch}} f FULL JOIN (
                SELECT {key}, {total('gained')}, {total('given')}, legs FROM (
                  SELECT CAST(ts AS DATE) AS date, domain, source, account,
                    coalesce(token, '') AS token, count(*) FILTER (WHERE counts) AS legs,
                    {sums('gained', 'amount')}, {sums('given', '-amount')}
                  FROM {transactions} GROUP BY ALL)) u
              USING ({key})
              WHERE f.inflow IS DISTINCT FROM u.gained OR f.outflow IS DISTINCT FROM u.given
                OR f.legs IS DISTINCT FROM u.legs"""),
    ]


def _daily(b: Bounds) -> list:
    key = "date, domain, source, account, token"
    return [
        _unique(*key.split(", ")),
        _rows("no_negative_balance", "warning",
              "No balance is below zero (or history before it is missing)",
              f"SELECT {key}, balance, balance_wide FROM {{batch}} "
              "WHERE balance < 0 OR (balance IS NULL AND balance_wide < 0)"),
        _rows("flows_carried", "critical", "Every flow moved a balance, by as much",
              f"""SELECT {key}, f.net AS flow, d.net FROM {{batch}} d RIGHT JOIN (
                FROM {b.rows('curated.daily_flows')} WHERE legs + overflow_legs > 0) f USING ({key})
              WHERE d.source IS NULL OR f.net IS DISTINCT FROM d.net"""),
        _rows("balance_moves_by_net", "critical", "From day to day a balance moves by the net flow",
              f"""SELECT {key}, before, net, balance FROM (
                SELECT *, lag(balance) OVER token AS before, lag(date) OVER token AS day_before
                FROM {{batch}}
                WINDOW token AS (PARTITION BY domain, source, account, token ORDER BY date))
              WHERE day_before >= date - 1 AND balance <> TRY(before + net)"""),
    ]


def _reconciliation(b: Bounds) -> list:
    old = _literal(b.interval.end - AWAITED_FOR)
    who = ("source, account, token, snapshot_ts, reported_text, computed_text, difference_text, "
           "tolerance")
    return [
        _unique("source", "account", "token"),
        _present("status"), _among("status", ("reconciled", "off", "awaiting_coverage")),
        _rows("balances_reconcile", "critical", "Computed balances equal the reported ones",
              f"SELECT {who} FROM {{batch}} WHERE status = 'off'"),
        _rows("coverage_awaited_briefly", "info",
              f"No reported balance waits over {AWAITED_FOR.days} days for its history",
              f"SELECT {who} FROM {{batch}} WHERE status = 'awaiting_coverage' "
              f"AND snapshot_ts < {old}"),
    ]


def _assets(b: Bounds) -> list:
    return [
        _unique("token"), _present("token"),
        _rows("tokens_described", "info", "What moved is described in assets",
              f"SELECT DISTINCT u.token FROM {b.rows('curated.tx_unified')} u "
              "ANTI JOIN {batch} a ON a.token = u.token WHERE NOT u.is_scam"),
    ]
