"""Bitstamp: one list of transactions, whose rows have a column for each currency that they move.

https://www.bitstamp.net/api/#tag/Transactions-private/operation/GetUserTransactions

A row becomes an entry for each currency whose column is not 0. The fee is apart: in the quote
currency of a trade (the second of the column that names the pair), else in the currency moved. No
row carries a balance. The list takes no time that is older than a month, so it is read newest first
until the time is crossed. Limits: 400 calls a second, 10,000 in ten minutes.
"""

from __future__ import annotations

from extract.core.records import Records
from extract.core.source import Rate
from extract.core.sql import decimal
from extract.ledger import Balances, Exchange, Ledger, Offset, source
from extract.ledger.mapping import mappings, records
from extract.ledger.moments import sql as moment

TRANSACTIONS = "/api/v2/user_transactions/"
# Columns of a row that are no currency; those of pairs have a "_" in their name.
NO_CURRENCY = "id type datetime fee order_id status market self_trade self_trade_order_id".split()
KINDS = {
    "0": "deposit",
    "1": "withdrawal",
    "2": "trade",
    "14": "transfer",  # with a sub-account
    "25": "transfer",  # staked assets credited
    "26": "transfer",  # sent to staking
    "27": "reward",
    "32": "reward",
    "33": "transfer",
    "35": "transfer",
}

BITSTAMP = Exchange(
    name="bitstamp",
    title="Bitstamp",
    documentation="https://www.bitstamp.net/api/",
    host="https://www.bitstamp.net",
    ccxt="bitstamp",
    secret="API secret",
    permission="Account balance, User transactions",
    rates={"/api/v2/": Rate(16, 1, burst=50)},
    ledgers=(
        Ledger(
            call="privatePostUserTransactions",
            endpoint=TRANSACTIONS,
            params={"sort": "desc"},
            paging=Offset("offset", 1000, limit="limit"),
            time=("datetime", "text"),
        ),
    ),
    balances=(
        Balances(
            call="privatePostAccountBalances",
            endpoint="/api/v2/account_balances/",
            asset="upper(row.currency)",
            amount="total",
        ),
    ),
)

_KIND = " ".join(f"WHEN '{type_}' THEN '{kind}'" for type_, kind in KINDS.items())
_NOT = ", ".join(f"'{name}'" for name in NO_CURRENCY)
LEDGER = f"""
SELECT page_id, item * 100 + place AS item, source, account, entry_id, ts, 'spot' AS wallet, type,
       CASE type {_KIND} ELSE 'unknown' END AS kind, NULL::VARCHAR AS status, true AS is_settled,
       asset, amount_text, {decimal("amount_text")} AS amount, fee_text, {decimal("fee_text")} AS fee,
       CASE WHEN fee_text IS NOT NULL THEN asset END AS fee_asset, NULL::VARCHAR AS network,
       NULL::VARCHAR AS tx_hash, order_id, entry_of AS trade_id, payload,
       NULL::VARCHAR AS balance_text, NULL::DECIMAL(38,18) AS balance
FROM (
    SELECT *, CASE WHEN has_fee THEN fee_stated END AS fee_text,
           CASE WHEN has_fee AND coalesce({decimal("fee_stated")}, 0) <> 0
               THEN ({decimal("stated")} - {decimal("fee_stated")})::VARCHAR ELSE stated END AS amount_text
    FROM (
        SELECT *, fee_stated IS NOT NULL AND name = coalesce(quote, name) AS has_fee
        FROM (
            SELECT page_id, item, source, account, payload, row['id'] AS entry_of,
                   row['id'] || ':' || upper(each.key) AS entry_id, row['type'] AS type,
                   {moment("row['datetime']", "text")} AS ts, row['order_id'] AS order_id,
                   each.key AS name, upper(each.key) AS asset, each.value AS stated,
                   row['fee'] AS fee_stated, place,
                   CASE WHEN row['type'] = '2' THEN split_part(list_filter(map_keys(row),
                       k -> contains(k, '_') AND k NOT IN ({_NOT}))[1], '_', 2) END AS quote
            FROM (
                SELECT *, unnest(map_entries(row)) AS each,
                       generate_subscripts(map_entries(row), 1) AS place
                FROM records_ledger)
            WHERE each.key NOT IN ({_NOT}) AND NOT contains(each.key, '_')
                AND each.value IS NOT NULL
                AND coalesce({decimal("each.value")} <> 0, true))))
"""

SOURCE = source(
    BITSTAMP,
    records={
        **records(BITSTAMP),
        "ledger": Records((TRANSACTIONS,), None, '"MAP(VARCHAR, VARCHAR)"'),
    },
    mappings={**mappings(BITSTAMP), "exchanges_ledger": LEDGER},
)
