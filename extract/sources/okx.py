"""OKX: the ledgers of the trading and of the funding account; their rows carry the balance after.

https://www.okx.com/docs-v5/en/#trading-account-rest-api-get-bills-details-last-3-months
https://www.okx.com/docs-v5/en/#funding-account-rest-api-asset-bills-history (since 2021-02)

A fee below zero was paid, and is in the change already. The funding account's list takes no times:
it is read newest first until the time is crossed. Limits: 5 calls in 2 seconds for bills of the
trading account, 1 a second for those of funding.
"""

from __future__ import annotations

from datetime import timedelta

from extract.core.source import Rate
from extract.ledger import Balances, Exchange, Fee, LastId, Ledger, source

TRADING = {
    "1": "transfer",
    "2": "trade",
    "3": "trade",  # delivery
    "4": "conversion",
    "5": "trade",  # liquidation
    "6": "transfer",
    "7": "fee",  # interest
    "8": "fee",  # funding
    "9": "trade",  # auto-deleveraging
    "11": "conversion",
    "12": "transfer",
    "14": "trade",
    "15": "transfer",
    "24": "trade",
    "27": "conversion",
    "28": "conversion",
    "29": "conversion",
    "30": "conversion",
}
FUNDING = {
    "1": "deposit",
    "2": "withdrawal",
    "13": "withdrawal",  # canceled: it comes back
    "20": "transfer",
    "21": "transfer",
    "22": "transfer",
    "23": "transfer",
    "28": "reward",  # airdrop and the like
    "47": "reward",
    "48": "reward",
    "68": "fee",
    "74": "reward",
    "75": "transfer",  # subscription of earn
    "76": "transfer",
    "80": "transfer",
    "82": "reward",
    "83": "reward",
    "99": "trade",
    "115": "reward",
    "116": "conversion",
    "117": "conversion",
    "118": "transfer",
    "122": "reward",
    "130": "transfer",  # to and from the trading account
    "131": "transfer",
    "146": "reward",
    "150": "reward",
    "151": "reward",
    "172": "reward",
}

OKX = Exchange(
    name="okx",
    title="OKX",
    documentation="https://www.okx.com/docs-v5/en/#trading-account-rest-api",
    host="https://www.okx.com",
    ccxt="okx",
    secret="secret key",
    passphrase="passphrase",
    permission="Read",
    depth="3 months of the trading account, since February 2021 of funding",
    ok=("code", "0"),
    message="msg",
    rates={
        "/api/v5/account/": Rate(5, 2, strict=True),
        "/api/v5/asset/bills": Rate(1, 1),
        "/api/v5/asset/": Rate(6, 1, strict=True),
    },
    ledgers=(
        Ledger(
            call="privateGetAccountBillsArchive",
            endpoint="/api/v5/account/bills-archive",
            rows="data",
            paging=LastId("after", 100),
            time=("ts", "ms"),
            since=("begin", "ms"),
            until=("end", "ms"),
            depth=timedelta(days=90),
            wallet="'trading'",
            id="billId",
            asset="ccy",
            amount="balChg",
            fee=Fee("fee", negative=True),
            balance="bal",
            kinds=TRADING,
            order="ordId",
            trade="tradeId",
            known="instType mgnMode instId sz subType notes from to execType interest tag fillTime clOrdId px posBal posBalChg pnl earnAmt earnApr fillFwdPx fillIdxPx fillMarkPx fillMarkVol fillPxUsd fillPxVol",
        ),
        Ledger(
            call="privateGetAssetBillsHistory",
            endpoint="/api/v5/asset/bills-history",
            params={"pagingType": "2"},  # by the id of the bill
            rows="data",
            paging=LastId("after", 100),
            time=("ts", "ms"),
            wallet="'funding'",
            id="billId",
            asset="ccy",
            amount="balChg",
            balance="bal",
            kinds=FUNDING,
            known="clientId notes",
        ),
    ),
    balances=(
        Balances(
            call="privateGetAccountBalance",
            endpoint="/api/v5/account/balance",
            rows="data.0.details",
            wallet="'trading'",
            asset="ccy",
            amount="cashBal",
        ),
        Balances(
            call="privateGetAssetBalances",
            endpoint="/api/v5/asset/balances",
            rows="data",
            wallet="'funding'",
            asset="ccy",
            amount="bal",
        ),
    ),
)

SOURCE = source(OKX)
