"""Bitget as the sandbox answers it: ninety days, pages by the id of the last bill."""

from __future__ import annotations

from typing import Any

from sandbox.bitget.api import KEY, PASSPHRASE, SECRET, BitgetApi, BitgetHistory, bitget_error
from sandbox.vendor import Pages, Vendor


def _rows(answer: Any) -> list | None:
    rows = answer.get("data") if isinstance(answer, dict) else None
    return rows if isinstance(rows, list) and rows and "billId" in rows[0] else None


VENDOR = Vendor(
    "bitget",
    api=BitgetApi,
    history=BitgetHistory,
    error=bitget_error,
    accounts=({"account": "main", "connection": "bitget_main"},),
    connection=lambda url: {
        "host": url,
        "login": KEY,
        "password": SECRET,
        "extra": {"password": PASSPHRASE},
    },
    pages=Pages(_rows, lambda row: row.get("cTime")),
    in_demo=False,
)
