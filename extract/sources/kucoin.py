"""KuCoin: the ledgers of its accounts, a day of time a call, the last year.

https://www.kucoin.com/docs-new/rest/account-info/account-funding/get-account-ledgers-spot-margin
https://www.kucoin.com/docs-new/rest/account-info/account-funding/get-account-ledgers-tradehf

Amounts have no sign: `direction` says which way they go. They hold their fee. The old ledger of the
main, trade and margin accounts states 0 as balance, whatever they hold; that of high-frequency
accounts states the balance after the row.
Limits: 2,000 in 30 seconds of weight; a page of the old ledger weighs 2, others less.
"""

from __future__ import annotations

from datetime import timedelta

from extract.core.source import Rate
from extract.ledger import Balances, Direction, Exchange, Fee, LastId, Ledger, PageNumber, source

OUT = ("out", "OUT")
KINDS = {
    "Exchange": "trade",
    "TRADE_EXCHANGE": "trade",
    "Deposit": "deposit",
    "DEPOSIT": "deposit",
    "Withdrawal": "withdrawal",
    "WITHDRAW": "withdrawal",
    "Transfer": "transfer",
    "TRANSFER": "transfer",
    "SUB_TRANSFER": "transfer",
    "Sub Transfer": "transfer",
    "Convert to KCS": "conversion",
    "KCS Convert": "conversion",
    "Convert": "conversion",
    "TRADE_CONVERT": "conversion",
    "Rewards": "reward",
    "Distribution": "reward",
    "Staking Profits": "reward",
    "Soft Staking Profits": "reward",
    "Airdrop": "reward",
    "Referral Bonus": "reward",
    "KCS Bonus": "reward",
    "KCS Pay Fees": "fee",
    "Refunded Fees": "reward",
    "Loans": "transfer",
    "Loans Repaid": "transfer",
    "Liability Interest": "fee",
}

KUCOIN = Exchange(
    name="kucoin",
    title="KuCoin",
    documentation="https://www.kucoin.com/docs-new/rest/account-info/account-funding/introduction",
    host="https://api.kucoin.com",
    ccxt="kucoin",
    secret="API secret",
    passphrase="passphrase",
    permission="General",
    depth="1 year",
    ok=("code", "200000"),
    message="msg",
    rates={"/api/": Rate(20, 1, strict=True)},
    ledgers=(
        Ledger(
            call="privateGetAccountsLedgers",
            endpoint="/api/v1/accounts/ledgers",
            rows="data.items",
            paging=PageNumber("currentPage", 500, limit="pageSize", total="data.totalPage"),
            time=("createdAt", "ms"),
            since=("startAt", "ms"),
            until=("endAt", "ms"),
            window=timedelta(days=1),
            depth=timedelta(days=365),
            wallet="row.accountType",
            direction=Direction("direction", OUT),
            fee=Fee("fee"),
            type="bizType",
            kinds=KINDS,
            known="context tax",
        ),
        Ledger(
            call="privateGetHfAccountsLedgers",
            endpoint="/api/v1/hf/accounts/ledgers",
            rows="data",
            paging=LastId("lastId", 200),
            time=("createdAt", "ms"),
            since=("startAt", "ms"),
            until=("endAt", "ms"),
            window=timedelta(days=1),
            depth=timedelta(days=365),
            wallet="row.accountType",
            direction=Direction("direction", OUT),
            fee=Fee("fee"),
            balance="balance",
            type="bizType",
            kinds=KINDS,
            known="context tax",
        ),
    ),
    balances=(
        Balances(
            call="privateGetAccounts",
            endpoint="/api/v1/accounts",
            rows="data",
            wallet="upper(row.type)",
        ),
    ),
)

SOURCE = source(KUCOIN)
