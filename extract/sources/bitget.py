"""Bitget: the bills of the spot account, 90 days back; a row carries the balance after it.

https://www.bitget.com/api-doc/spot/account/Get-Account-Bills

A fee is listed below zero, beside the amount. Limit: 10 calls a second.
"""

from __future__ import annotations

from datetime import timedelta

from extract.core.source import Rate
from extract.ledger import Balances, Exchange, Fee, LastId, Ledger, source

BITGET = Exchange(
    name="bitget",
    title="Bitget",
    documentation="https://www.bitget.com/api-doc/spot/account/Get-Account-Bills",
    host="https://api.bitget.com",
    ccxt="bitget",
    secret="secret key",
    passphrase="passphrase",
    permission="Read-only: spot",
    depth="90 days",
    ok=("code", "00000"),
    message="msg",
    rates={"/api/v2/spot/": Rate(10, 1, strict=True)},
    ledgers=(
        Ledger(
            call="privateSpotGetV2SpotAccountBills",
            endpoint="/api/v2/spot/account/bills",
            rows="data",
            paging=LastId("idLessThan", 500),
            time=("cTime", "ms"),
            since=("startTime", "ms"),
            until=("endTime", "ms"),
            window=timedelta(days=90),
            depth=timedelta(days=90),
            id="billId",
            asset="upper(row.coin)",
            amount="size",
            fee=Fee("fees", apart=True, negative=True),
            balance="balance",
            type="businessType",
            known="groupType",
            kinds={
                "buy": "trade",
                "sell": "trade",
                "BUY": "trade",
                "SELL": "trade",
                "ORDER_DEALT_IN": "trade",
                "ORDER_DEALT_OUT": "trade",
                "deposit": "deposit",
                "DEPOSIT": "deposit",
                "withdraw": "withdrawal",
                "WITHDRAW": "withdrawal",
                "transfer-in": "transfer",
                "transfer-out": "transfer",
                "transfer_in": "transfer",
                "transfer_out": "transfer",
                "TRANSFER_IN": "transfer",
                "TRANSFER_OUT": "transfer",
                "convert": "conversion",
                "CONVERT_IN": "conversion",
                "CONVERT_OUT": "conversion",
                "airdrop": "reward",
                "AIRDROP_REWARDS": "reward",
                "rebate": "reward",
                "REBATE_REWARDS": "reward",
                "interest": "fee",
            },
        ),
    ),
    balances=(
        Balances(
            call="privateSpotGetV2SpotAccountAssets",
            endpoint="/api/v2/spot/account/assets",
            rows="data",
            asset="upper(row.coin)",
            amount=("available", "frozen", "locked"),
        ),
    ),
)

SOURCE = source(BITGET)
