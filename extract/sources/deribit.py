"""Deribit: the transaction log of each currency, without a limit of time; cash alone.

https://docs.deribit.com/api-reference/account-management/private-get_transaction_log

A row carries the cash balance after it; its change holds the commission. Profit that is not settled
is in the equity and in no row: cash is kept, equity is not. Limit: 1 call a second.
"""

from __future__ import annotations

from extract.core.source import Rate
from extract.ledger import Balances, Cursor, Each, Exchange, Fee, Ledger, source

SUMMARIES = "/api/v2/private/get_account_summaries"

DERIBIT = Exchange(
    name="deribit",
    title="Deribit",
    documentation="https://docs.deribit.com/api-reference/account-management/private-get_transaction_log",
    host="https://www.deribit.com",
    ccxt="deribit",
    secret="client secret",
    permission="account:read",
    depth="the whole life of the account; cash, not equity",
    rates={"/api/v2/private/": Rate(1, 1, burst=8)},
    ledgers=(
        Ledger(
            call="privateGetGetTransactionLog",
            endpoint="/api/v2/private/get_transaction_log",
            rows="result.logs",
            paging=Cursor("continuation", "result.continuation", limit=("count", 250)),
            time=("timestamp", "ms"),
            since=("start_timestamp", "ms"),
            until=("end_timestamp", "ms"),
            each=Each(
                call="privateGetGetAccountSummaries",
                endpoint=f"{SUMMARIES}#each",
                rows="result.summaries",
                param="currency",
                value="currency",
            ),
            wallet="'cash'",
            amount="change",
            fee=Fee("commission"),
            balance="balance",
            kinds={
                "trade": "trade",
                "maker": "trade",
                "taker": "trade",
                "open": "trade",
                "close": "trade",
                "liquidation": "trade",
                "settlement": "trade",
                "delivery": "trade",
                "deposit": "deposit",
                "withdrawal": "withdrawal",
                "transfer": "transfer",
                "swap": "conversion",
                "usdc_reward": "reward",
                "negative_balance_fee": "fee",
            },
            order="order_id",
            trade="trade_id",
            known="username user_seq user_id side price_currency price position interest_pl instrument_name info equity cashflow amount contracts profit_as_cashflow total_interest_pl session_rpl session_upl fee_balance fee_role mark_price index_price user_role block_rfq_id ip settlement_price",
        ),
    ),
    balances=(
        Balances(
            call="privateGetGetAccountSummaries",
            endpoint=SUMMARIES,
            rows="result.summaries",
            wallet="'cash'",
        ),
    ),
)

SOURCE = source(DERIBIT)
