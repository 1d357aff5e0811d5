"""Kraken as the sandbox answers it: a map of rows by id, pages by offset, a nonce that must rise."""

from __future__ import annotations

from typing import Any

from sandbox.kraken.api import KEY, SECRET, KrakenApi, KrakenHistory, kraken_error
from sandbox.vendor import Pages, Vendor


def _rows(answer: Any) -> dict | None:
    result = answer.get("result") if isinstance(answer, dict) else None
    return result.get("ledger") if isinstance(result, dict) else None


VENDOR = Vendor(
    "kraken",
    api=KrakenApi,
    history=KrakenHistory,
    error=kraken_error,
    accounts=({"account": "main", "connection": "kraken_main"},),
    connection=lambda url: {"host": url, "login": KEY, "password": SECRET},
    pages=Pages(_rows, lambda row: row.get("time")),
    in_demo=False,
)
