"""The SQL from landed pages to rows, made of an exchange's facts.

Each call is a list of records (extract.core.records.Records) of its own; the ledgers of an
exchange are one dataset, and so are its balances and its fills. Amounts stay text until they are
DECIMAL(38,18); what is computed of them is computed in that.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import fields as dataclass_fields
from dataclasses import replace
from functools import cache, partial
from typing import Any

from extract.core.records import Records
from extract.core.sql import decimal
from extract.ledger.facts import Balances, Call, Exchange, Fills, Ledger, Listing
from extract.ledger.moments import sql as moment_sql

_SQL = re.compile(r"\b(row|params)\b|^'")  # an expression that is SQL, or a name in quotes
_NAMED = re.compile(r"\brow\.([A-Za-z_][A-Za-z_0-9]*(?:\.[A-Za-z_][A-Za-z_0-9]*)*)")
BY_SIGN = "CASE WHEN starts_with(amount_text, '-') THEN 'withdrawal' ELSE 'deposit' END"
NO_TEXT = "NULL::VARCHAR"


def records(exchange: Exchange) -> dict[str, Records]:
    """{name: Records} of every call of the exchange that a mapping reads."""
    return {
        name: Records((call.endpoint,), call.rows or None, _fields(call), call.shape, call.inner)
        for name, call in _calls(exchange).items()
    }


def mappings(exchange: Exchange) -> dict[str, str]:
    """{dataset: SELECT} of the exchange."""
    if exchange.aliases:
        exchange = replace(
            exchange,
            ledgers=tuple(_aliased(exchange, call) for call in exchange.ledgers),
            balances=tuple(_aliased(exchange, call) for call in exchange.balances),
        )
    made: dict[str, list[str]] = {}
    for name, call in _calls(exchange).items():
        for kind, dataset, select in KINDS_OF_CALLS:
            if isinstance(call, kind):
                made.setdefault(dataset, []).append(select(name, call))
    return {dataset: "\nUNION ALL\n".join(selects) for dataset, selects in made.items()}


def _aliased(exchange: Exchange, call: Any) -> Any:
    """A call whose assets go by one code each."""
    asset = _sql(call, call.asset)
    cases = " ".join(f"WHEN '{other}' THEN '{code}'" for other, code in exchange.aliases.items())
    return replace(call, asset=f"CASE {asset} {cases} ELSE {asset} END")


def _calls(exchange: Exchange) -> dict[str, Call]:
    """The calls that mappings read, by the name of their records."""
    named: dict[str, Call] = {}
    for prefix, calls in (
        ("ledger", exchange.ledgers),
        ("balances", exchange.balances),
        ("fills", exchange.fills),
    ):
        for number, call in enumerate(calls, 1):
            named[f"{prefix}_{number}" if len(calls) > 1 else prefix] = call
    return named


def _expressions(call: Call) -> Iterable[str]:
    """Every expression among the facts of a call."""
    for fact in dataclass_fields(call):
        value = getattr(call, fact.name)
        if fact.name in (
            "call",
            "endpoint",
            "rows",
            "shape",
            "columns",
            "params",
            "inner",
            "settled",
            "known",
        ):
            continue
        if isinstance(call, Ledger) and call.legs and fact.name in ("asset", "amount"):
            continue
        if fact.name == "time":
            yield value[0]
        elif fact.name == "direction" and value:
            yield value.name
        elif fact.name == "fee" and isinstance(call, Ledger):
            if value:
                yield from (value.name, value.asset)
        elif fact.name == "legs":
            for leg in value:
                yield from (leg.asset, leg.amount, f"row {leg.out}", leg.wallet)
        elif fact.name == "amount" and isinstance(value, tuple):
            yield from value
        elif isinstance(value, str):
            yield value


def _fields(call: Call) -> str:
    """What is read of a record, as DuckDB's from_json wants it."""
    if call.shape == "arrays":
        return '["VARCHAR"]'
    tree: dict = {}
    for expression in filter(None, _expressions(call)):
        names = _NAMED.findall(expression) if _SQL.search(expression) else [expression]
        for name in names:
            *path, leaf = name.split(".")
            place = tree
            for step in path:
                place = place.setdefault(step, {})
            place.setdefault(leaf, "VARCHAR")
    tree.pop("_key", None)
    return json.dumps(tree)


@cache
def known_fields(call: Listing) -> frozenset[str]:
    """The fields of a record that some fact names; empty where the list has no `known`."""
    if not call.known or call.shape == "arrays":
        return frozenset()
    return frozenset({*json.loads(_fields(call)), *call.known.split(), "_key"})


def _sql(call: Call, expression: str) -> str:
    """The SQL of an expression; NULL for none."""
    if not expression:
        return NO_TEXT
    if call.shape == "arrays":
        if not _SQL.search(expression):
            return f"row[{call.columns.index(expression) + 1}]"
        return _NAMED.sub(lambda m: f"row[{call.columns.index(m[1]) + 1}]", expression)
    if _SQL.search(expression):
        return f"({expression})"
    return "row." + ".".join(f'"{name}"' for name in expression.split("."))


def _negated(text: str) -> str:
    """SQL of the text of a number with the other sign; 0 has none."""
    return (
        f"CASE WHEN regexp_full_match({text}, '[+-]?[0.]+') THEN ltrim({text}, '+-') "
        f"WHEN starts_with({text}, '-') THEN substr({text}, 2) "
        f"WHEN {text} IS NOT NULL THEN '-' || ltrim({text}, '+') END"
    )


def exact_text(amount: str) -> str:
    """SQL of the text of a DECIMAL, without the zeros at its end."""
    return f"rtrim(rtrim(({amount})::DECIMAL(38,18)::VARCHAR, '0'), '.')"


def _sum(parts: Iterable[str]) -> str:
    """SQL of the exact sum of amounts as text: a part that is absent counts as none."""
    return exact_text(" + ".join(f"coalesce({decimal(part)}, 0)" for part in parts))


def ledger(name: str, call: Ledger) -> str:
    """SELECT of raw.exchanges_ledger over records_<name>."""
    if call.legs:
        return "\nUNION ALL\n".join(_leg(name, call, number) for number in range(len(call.legs)))
    return _entries(name, call, _sql(call, call.amount), "item", "true")


def _leg(name: str, call: Ledger, number: int) -> str:
    """The entries of one leg of the records."""
    leg = call.legs[number]
    unsigned = f"ltrim({_sql(call, leg.amount)}, '+-')"
    stated = f"CASE WHEN {leg.out} THEN '-' || {unsigned} ELSE {unsigned} END"
    one = replace(
        call,
        legs=(),
        id=f"{_sql(call, call.id)} || ':{leg.name}'",
        asset=leg.asset,
        wallet=leg.wallet or call.wallet,
        kinds={} if leg.kind else call.kinds,
    )
    item = f"item * {len(call.legs)} + {number}"
    there = f"asset IS NOT NULL AND coalesce({decimal('stated_text')} <> 0, true)"
    return _entries(name, one, stated, item, there, leg.kind)


def _entries(
    name: str, call: Ledger, stated: str, item: str, there: str, only_kind: str = ""
) -> str:
    """The entries whose amounts as stated are the SQL `stated`, of records where `there`."""
    of = partial(_sql, call)
    if call.direction:
        out = ", ".join(f"'{value}'" for value in call.direction.out)
        unsigned = f"ltrim({stated}, '+-')"
        stated = f"CASE WHEN {of(call.direction.name)} IN ({out}) THEN '-' || {unsigned} ELSE {unsigned} END"
    fee = of(call.fee.name) if call.fee else NO_TEXT
    if call.fee and call.fee.negative:
        fee = _negated(fee)
    change = "stated_text"
    if call.fee and call.fee.apart:
        change = (
            f"CASE WHEN coalesce({decimal('fee_text')}, 0) = 0 THEN stated_text "
            f"ELSE {exact_text(decimal('stated_text') + ' - ' + decimal('fee_text'))} END"
        )
    kinds: dict[str, list[str]] = {}
    for kind_of, kind in call.kinds.items():
        kinds.setdefault(kind, []).append(kind_of)
    cases = " ".join(
        f"WHEN kind_by IN ({', '.join(_quoted(value) for value in values)}) "
        f"THEN {BY_SIGN if kind == 'by sign' else _quoted(kind)}"
        for kind, values in kinds.items()
    )
    kind = f"CASE {cases} ELSE 'unknown' END" if cases else _quoted(only_kind or "unknown")
    final = (call.settled,) if isinstance(call.settled, str) else call.settled
    settled = "true"
    if any(final):
        settled = f"coalesce(status IN ({', '.join(_quoted(status) for status in final)}), false)"
    fee_asset = of(call.fee.asset) if call.fee and call.fee.asset else "asset"
    return f"""
SELECT page_id, item, source, account, entry_id, ts, wallet, type, {kind} AS kind, status,
       {settled} AS is_settled, asset, amount_text, {decimal("amount_text")} AS amount,
       fee_text, {decimal("fee_text")} AS fee,
       CASE WHEN fee_text IS NOT NULL THEN fee_asset END AS fee_asset, network, tx_hash, order_id,
       trade_id, payload, balance_text, {decimal("balance_text")} AS balance
FROM (
    SELECT *, {fee_asset} AS fee_asset, {change} AS amount_text
    FROM (
        SELECT page_id, {item} AS item, source, account, payload, row, params,
               {of(call.id)} AS entry_id, {moment_sql(of(call.time[0]), call.time[1])} AS ts,
               {of(call.wallet)} AS wallet, {of(call.type)} AS type,
               {of(call.kind_by or call.type)} AS kind_by,
               {of(call.status)} AS status, {of(call.asset)} AS asset, {stated} AS stated_text,
               {fee} AS fee_text, {of(call.network)} AS network, {of(call.tx_hash)} AS tx_hash,
               {of(call.order)} AS order_id, {of(call.trade)} AS trade_id,
               {of(call.balance)} AS balance_text
        FROM records_{name})
    WHERE {there})
"""


def balances(name: str, call: Balances) -> str:
    """SELECT of raw.balances over records_<name>."""
    parts = (call.amount,) if isinstance(call.amount, str) else call.amount
    texts = [_sql(call, part) for part in parts]
    amount = texts[0] if len(texts) == 1 else _sum(texts)
    return f"""
SELECT page_id, item, source, account, wallet, token, as_of AS ts, amount_text,
       {decimal("amount_text")} AS amount, payload, NULL::VARCHAR AS price_text,
       NULL::DECIMAL(38,18) AS price, NULL::BOOLEAN AS is_verified
FROM (
    SELECT page_id, item, source, account, as_of, payload, params, {_sql(call, call.wallet)} AS wallet,
           {_sql(call, call.asset)} AS token, {amount} AS amount_text
    FROM records_{name} WHERE as_of IS NOT NULL AND ({call.there}))
"""


def fills(name: str, call: Fills) -> str:
    """SELECT of raw.exchanges_trades over records_<name>."""
    of = partial(_sql, call)
    fee = of(call.fee)
    if call.fee_negative:
        fee = _negated(fee)
    return f"""
SELECT page_id, item, source, account, base || '/' || quote AS symbol, trade_id, ts, order_id, base,
       quote, side, price_text, {decimal("price_text")} AS price,
       amount_text, {decimal("amount_text")} AS amount,
       cost_text, {decimal("cost_text")} AS cost, fee_text, {decimal("fee_text")} AS fee,
       fee_asset, liquidity, payload
FROM (
    SELECT page_id, item, source, account, payload, {of(call.base)} AS base, {of(call.quote)} AS quote,
           {of(call.id)} AS trade_id, {moment_sql(of(call.time[0]), call.time[1])} AS ts,
           {of(call.order)} AS order_id, lower({of(call.side)}) AS side,
           {of(call.price)} AS price_text, {of(call.amount)} AS amount_text,
           {of(call.cost)} AS cost_text, {fee} AS fee_text, {of(call.fee_asset)} AS fee_asset,
           lower({of(call.liquidity)}) AS liquidity
    FROM records_{name})
"""


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


KINDS_OF_CALLS: tuple[tuple[type[Call], str, Callable[..., str]], ...] = (
    (Ledger, "exchanges_ledger", ledger),
    (Balances, "balances", balances),
    (Fills, "exchanges_trades", fills),
)
