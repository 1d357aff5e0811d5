"""Coinbase Exchange as the sandbox answers it: a ledger for each account, pages by a header."""

from __future__ import annotations

from typing import Any

from sandbox.coinbaseexchange.api import (
    KEY,
    PASSPHRASE,
    SECRET,
    CoinbaseExchangeApi,
    CoinbaseExchangeHistory,
    coinbaseexchange_error,
)
from sandbox.vendor import Pages, Vendor


def _rows(answer: Any) -> list | None:
    return answer if isinstance(answer, list) and answer and "created_at" in answer[0] else None


VENDOR = Vendor(
    "coinbaseexchange",
    api=CoinbaseExchangeApi,
    history=CoinbaseExchangeHistory,
    error=coinbaseexchange_error,
    accounts=({"account": "main", "connection": "coinbaseexchange_main"},),
    connection=lambda url: {
        "host": url,
        "login": KEY,
        "password": SECRET,
        "extra": {"password": PASSPHRASE},
    },
    pages=Pages(_rows, lambda row: row.get("created_at")),
    in_demo=False,
)
