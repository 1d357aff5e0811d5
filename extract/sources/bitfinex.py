"""Bitfinex: one ledger of all wallets, six years back; a row carries the balance after it.

https://docs.bitfinex.com/reference/rest-auth-ledgers (2,500 a page, 90 calls a minute)

A row is a list, whose numbers are read as their text. Fees are rows of their own. What a row is, its
description says: the words before the first amount are its type. A key's nonce must rise.
"""

from __future__ import annotations

from datetime import timedelta

from extract.core.source import Rate
from extract.ledger import Balances, ByTime, Exchange, Ledger, source

BITFINEX = Exchange(
    name="bitfinex",
    title="Bitfinex",
    documentation="https://docs.bitfinex.com/reference/rest-auth-ledgers",
    host="https://api.bitfinex.com",
    ccxt="bitfinex",
    secret="API secret",
    permission="Account history, Wallets (read)",
    depth="6 years",
    one_caller=True,
    rates={"/v2/auth/": Rate(90, 60, burst=10)},
    ledgers=(
        Ledger(
            call="privatePostAuthRLedgersHist",
            endpoint="/v2/auth/r/ledgers/hist",
            shape="arrays",
            columns=(
                "id",
                "currency",
                "wallet",
                "mts",
                "_",
                "amount",
                "balance",
                "_2",
                "description",
            ),
            paging=ByTime("end", 2500),
            time=("mts", "ms"),
            since=("start", "ms"),
            until=("end", "ms"),
            depth=timedelta(days=6 * 365),
            wallet="coalesce(row.wallet, 'exchange')",
            balance="balance",
            type="trim(regexp_extract(row.description, '^[A-Za-z][A-Za-z ]*'))",
            kinds={
                "Exchange": "trade",
                "Settlement": "trade",
                "Position closed": "trade",
                "Trading fees for": "fee",
                "Trading rebate for": "reward",
                "Deposit": "deposit",
                "Deposit Fee": "fee",
                "Crypto Withdrawal fee on wallet exchange": "fee",
                "Withdrawal fee": "fee",
                "BITCOIN Withdrawal": "withdrawal",
                "Withdrawal": "withdrawal",
                "Transfer of": "transfer",
                "Margin Funding Payment on wallet funding": "reward",
                "Position funding cost or interest charged": "fee",
                "Used Margin Funding Charge": "fee",
                "Staking Payments on wallet exchange": "reward",
                "Affiliate Rebate": "reward",
                "Conversion": "conversion",
            },
        ),
    ),
    balances=(
        Balances(
            call="privatePostAuthRWallets",
            endpoint="/v2/auth/r/wallets",
            shape="arrays",
            columns=("type", "currency", "balance"),
            wallet="row.type",
        ),
    ),
)

SOURCE = source(BITFINEX)
