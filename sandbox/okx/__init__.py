"""OKX as the sandbox answers it: two accounts, pages by the id of the last bill."""

from __future__ import annotations

from typing import Any

from sandbox.okx.api import KEY, PASSPHRASE, SECRET, OkxApi, OkxHistory, okx_error
from sandbox.vendor import Pages, Vendor


def _rows(answer: Any) -> list | None:
    rows = answer.get("data") if isinstance(answer, dict) else None
    return rows if isinstance(rows, list) and rows and "billId" in rows[0] else None


VENDOR = Vendor(
    "okx",
    api=OkxApi,
    history=OkxHistory,
    error=okx_error,
    accounts=({"account": "main", "connection": "okx_main"},),
    connection=lambda url: {
        "host": url,
        "login": KEY,
        "password": SECRET,
        "extra": {"password": PASSPHRASE},
    },
    pages=Pages(_rows, lambda row: row.get("ts")),
    in_demo=False,
)
