"""Coinbase: Advanced Trade v3 for fills, v2 for the ledger (every wallet's transactions).

https://docs.cdp.coinbase.com/coinbase-app/track-apis/transactions
https://docs.cdp.coinbase.com/advanced-trade/reference/retailbrokerageapi_getfills

v2 transactions have no time filter: they come newest first, and the walk of a wallet ends at the
first page whose oldest row is before the job's read_from. A wallet whose balance and updated_at are
what they were is not walked. Limits: 10,000 v2 calls an hour, 30 v3 calls a second.
"""

from __future__ import annotations

from extract.core.records import Records
from extract.core.source import Form, FullRefreshCall, Rate, Source
from extract.sources.coinbase import mapping
from extract.sources.coinbase.calls import (
    ACCOUNTS,
    FILLS,
    FILLS_PAGE,
    PRODUCTS,
    TRANSACTIONS,
    V2_PAGE,
    connect,
    test_connection,
)
from extract.sources.coinbase.history import expected, fetch

__all__ = [
    "ACCOUNTS",
    "FILLS",
    "FILLS_PAGE",
    "PRODUCTS",
    "SOURCE",
    "TRANSACTIONS",
    "V2_PAGE",
    "connect",
    "expected",
    "fetch",
    "test_connection",
]

SOURCE = Source(
    name="coinbase",
    documentation="https://docs.cdp.coinbase.com/coinbase-app/track-apis/transactions",
    form=Form(
        title="Coinbase",
        host="https://api.coinbase.com",
        login="API key name",
        password="private key",
        hints={
            "login": "organizations/…/apiKeys/…",
            "password": "88 letters and digits (Ed25519), or -----BEGIN EC PRIVATE KEY----- …",
        },
    ),
    connect=connect,
    test_connection=test_connection,
    fetch=fetch,
    records={
        "ledger": Records((TRANSACTIONS,), "data", mapping.ENTRY_FIELDS),
        "fills": Records((FILLS,), "fills", mapping.FILL_FIELDS),
        "products": Records((PRODUCTS,), "products", mapping.PRODUCT_FIELDS),
        "wallets": Records((ACCOUNTS,), "data", mapping.WALLET_FIELDS),
    },
    mappings={
        "exchanges_ledger": mapping.LEDGER,
        "exchanges_trades": mapping.TRADES,
        "balances": mapping.BALANCES,
    },
    rates={"/v2/": Rate(10_000, 3600, burst=100), "/api/v3/": Rate(30, strict=True)},
    expected=expected,
    whole=(
        FullRefreshCall(ACCOUNTS, "balances", V2_PAGE, lists_column="wallet"),
        FullRefreshCall(TRANSACTIONS, "exchanges_ledger", V2_PAGE, per_column="wallet"),
        FullRefreshCall(FILLS, "exchanges_trades", FILLS_PAGE, probes_past_end=True),
        FullRefreshCall(PRODUCTS),
    ),
)
