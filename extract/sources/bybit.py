"""Bybit: the ledgers of the unified and of the funding account; their rows carry the balance after.

https://bybit-exchange.github.io/docs/v5/account/transaction-log (7 days a call, 2 years back)
https://bybit-exchange.github.io/docs/v5/asset/fund-history (times in seconds, rows without an id)

Two rows of one millisecond are usual. The change holds its fee: change = cashFlow + funding - fee.
Limits: 50 calls a second and key for the account, 10 for assets.
"""

from __future__ import annotations

from datetime import timedelta

from extract.core.source import Rate
from extract.ledger import (
    Balances,
    Cursor,
    Direction,
    Exchange,
    Fee,
    Ledger,
    OnePage,
    composite,
    source,
)

BYBIT = Exchange(
    name="bybit",
    title="Bybit",
    documentation="https://bybit-exchange.github.io/docs/v5/account/transaction-log",
    host="https://api.bybit.com",
    ccxt="bybit",
    permission="read-only: Unified Trading, Assets (wallet)",
    depth="2 years",
    ok=("retCode", "0"),
    message="retMsg",
    passing_errors=("10016",),  # internal error; the advice is to ask again
    rates={"/v5/account/": Rate(25, strict=True), "/v5/asset/": Rate(10, strict=True)},
    ledgers=(
        Ledger(
            call="privateGetV5AccountTransactionLog",
            endpoint="/v5/account/transaction-log",
            params={"accountType": "UNIFIED"},
            rows="result.list",
            paging=Cursor("cursor", "result.nextPageCursor", limit=("limit", 50)),
            time=("transactionTime", "ms"),
            since=("startTime", "ms"),
            until=("endTime", "ms"),
            window=timedelta(days=7),
            depth=timedelta(days=730),
            wallet="'UNIFIED'",
            # Samples have two rows of one id, a trade and its settlement.
            id="row.id || ':' || row.type",
            amount="change",
            fee=Fee("fee"),
            balance="cashBalance",
            kinds={
                "TRADE": "trade",
                "LIQUIDATION": "trade",
                "DELIVERY": "trade",
                "ADL": "trade",
                "CURRENCY_BUY": "conversion",
                "CURRENCY_SELL": "conversion",
                "CONVERT": "conversion",
                "TRANSFER_IN": "transfer",
                "TRANSFER_OUT": "transfer",
                "SETTLEMENT": "fee",
                "INTEREST": "fee",
                "AIRDROP": "reward",
                "BONUS": "reward",
                "BONUS_RECOLLECT": "reward",
                "FEE_REFUND": "reward",
            },
            order="orderId",
            trade="tradeId",
            known="symbol category side funding orderLinkId cashFlow feeRate bonusChange size qty "
            "tradePrice transSubType extraFees",
        ),
        Ledger(
            call="privateGetV5AssetFundinghistory",
            endpoint="/v5/asset/fundinghistory",
            rows="result.list",
            paging=Cursor("cursor", "result.nextPageCursor", limit=("limit", 50)),
            time=("createTime", "s"),
            since=("startTime", "s"),
            until=("endTime", "s"),
            window=timedelta(days=7),
            depth=timedelta(days=730),
            wallet="'FUND'",
            id=composite(
                "createTime",
                "currency",
                "ioDirection",
                "txnAmt",
                "afterAmt",
                prefix="FUND",
                with_balance=True,
            ),  # fmt: skip
            amount="txnAmt",
            direction=Direction("ioDirection", out=("O",)),
            balance="afterAmt",
            type="showBusiTypeEn",
            kinds={
                "Deposit": "deposit",
                "Withdraw": "withdrawal",
                "Transfer": "transfer",
                "Convert": "conversion",
                "Earn": "reward",
                "Rewards": "reward",
                "Airdrop": "reward",
            },
            known="memberId showBusiType description descriptionEn",
        ),
    ),
    balances=(
        Balances(
            call="privateGetV5AccountWalletBalance",
            endpoint="/v5/account/wallet-balance",
            params={"accountType": "UNIFIED"},
            rows="result.list.0.coin",
            wallet="'UNIFIED'",
            asset="coin",
            amount="walletBalance",
        ),
        Balances(
            call="privateGetV5AssetTransferQueryAccountCoinsBalance",
            endpoint="/v5/asset/transfer/query-account-coins-balance",
            params={"accountType": "FUND"},
            rows="result.balance",
            paging=OnePage(),
            wallet="'FUND'",
            asset="coin",
            amount="walletBalance",
        ),
    ),
)

SOURCE = source(BYBIT)
