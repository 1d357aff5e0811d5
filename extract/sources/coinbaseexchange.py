"""Coinbase Exchange: the ledger of each account of a profile; a row carries the balance after it.

https://docs.cdp.coinbase.com/exchange/reference/exchangerestapi_getaccountledger

An account has one currency, and its rows do not name it. Both dates must be given, or the last day
is answered. The next page is in the header CB-AFTER. Fees are rows of their own.
Limit: 15 calls a second.
"""

from __future__ import annotations

from extract.core.source import Rate
from extract.ledger import Balances, Cursor, Each, Exchange, Ledger, source

COINBASE_EXCHANGE = Exchange(
    name="coinbaseexchange",
    title="Coinbase Exchange",
    documentation="https://docs.cdp.coinbase.com/exchange/reference/exchangerestapi_getaccountledger",
    host="https://api.exchange.coinbase.com",
    ccxt="coinbaseexchange",
    secret="API secret",
    passphrase="passphrase",
    permission="View, for one profile",
    depth="the whole life of the profile",
    rates={"/accounts": Rate(10, 1, strict=True)},
    ledgers=(
        Ledger(
            call="privateGetAccountsIdLedger",
            endpoint="/accounts/{id}/ledger",
            paging=Cursor("after", header="cb-after", limit=("limit", 100)),
            time=("created_at", "text"),
            since=("start_date", "text"),
            until=("end_date", "text"),
            each=Each(
                call="privateGetAccounts",
                endpoint="/accounts#each",
                param="id",
                value="id",
                keep={"currency": "currency"},
            ),
            asset="params->>'$.currency'",
            balance="balance",
            kinds={
                "match": "trade",
                "fee": "fee",
                "rebate": "reward",
                "conversion": "conversion",
                "transfer": "by sign",
            },
            order="details.order_id",
            trade="details.trade_id",
            known="details",
        ),
    ),
    balances=(
        Balances(
            call="privateGetAccounts",
            endpoint="/accounts",
        ),
    ),
)

SOURCE = source(COINBASE_EXCHANGE)
