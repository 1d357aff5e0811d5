"""Gate: the account book of spot, 30 days a call; a row carries the balance after it.

https://www.gate.com/docs/developers/apiv4/en/#query-spot-account-transaction-history

Asked in seconds, answered in milliseconds. An order that is placed is a row, so the book's balance
is what is available; what open orders lock is not in it. Up to 20 digits after the point: what does
not fit 18 is kept as text and flagged. Pages reach 100,000 rows: a denser time is cut in two.
Limit: 200 calls in 10 seconds.
"""

from __future__ import annotations

from datetime import timedelta

from extract.core.source import Rate
from extract.ledger import Balances, Exchange, Ledger, PageNumber, source

GATE = Exchange(
    name="gate",
    title="Gate",
    documentation="https://www.gate.com/docs/developers/apiv4/en/",
    host="https://api.gateio.ws",
    ccxt="gate",
    secret="APIv4 secret",
    permission="read only: spot, wallet",
    depth="as far back as the account book of spot goes; what open orders lock is not in it",
    rates={"/api/v4/spot/": Rate(20, 1, strict=True)},
    ledgers=(
        Ledger(
            call="privateSpotGetAccountBook",
            endpoint="/api/v4/spot/account_book",
            paging=PageNumber("page", 100, limit="limit", most=100_000),
            time=("time", "ms"),
            since=("from", "s"),
            until=("to", "s"),
            window=timedelta(days=30),
            amount="change",
            balance="balance",
            known="text code",
            kinds={
                "deposit": "deposit",
                "withdraw": "withdrawal",
                "new_order": "trade",
                "cancel_order": "trade",
                "order_fill": "trade",
                "fill": "trade",
                "order_fee": "fee",
                "trade_fee_deduct": "fee",
                "point_fee": "fee",
                "margin_in": "transfer",
                "margin_out": "transfer",
                "futures_in": "transfer",
                "futures_out": "transfer",
                "lend_in": "transfer",
                "lend_out": "transfer",
                "sub_account_trf": "transfer",
                "convert": "conversion",
                "quick_convert": "conversion",
                "airdrop": "reward",
                "interest": "reward",
                "rebate": "reward",
                "dividend": "reward",
            },
        ),
    ),
    balances=(
        Balances(
            call="privateSpotGetAccounts",
            endpoint="/api/v4/spot/accounts",
            amount="available",
        ),
    ),
)

SOURCE = source(GATE)
