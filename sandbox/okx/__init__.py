"""OKX as the sandbox answers it: two accounts, pages by the id of the last bill."""

from __future__ import annotations

from typing import Any

from sandbox.ledgers.vendor import ledger_vendor
from sandbox.okx.api import KEY, PASSPHRASE, SECRET, OkxApi, OkxHistory
from sandbox.vendor import Pages


def _rows(answer: Any) -> list | None:
    rows = answer.get("data") if isinstance(answer, dict) else None
    return rows if isinstance(rows, list) and rows and "billId" in rows[0] else None


VENDOR = ledger_vendor(
    OkxApi,
    OkxHistory,
    Pages(_rows, lambda row: row.get("ts")),
    key=KEY,
    secret=SECRET,
    passphrase=PASSPHRASE,
)
