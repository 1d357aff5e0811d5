"""Bitget as the sandbox answers it: ninety days, pages by the id of the last bill."""

from __future__ import annotations

from typing import Any

from sandbox.bitget.api import KEY, PASSPHRASE, SECRET, BitgetApi, BitgetHistory
from sandbox.ledgers.vendor import ledger_vendor
from sandbox.vendor import Pages


def _rows(answer: Any) -> list | None:
    rows = answer.get("data") if isinstance(answer, dict) else None
    return rows if isinstance(rows, list) and rows and "billId" in rows[0] else None


VENDOR = ledger_vendor(
    BitgetApi,
    BitgetHistory,
    Pages(_rows, lambda row: row.get("cTime")),
    key=KEY,
    secret=SECRET,
    passphrase=PASSPHRASE,
)
