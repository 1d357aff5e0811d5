"""KuCoin as the sandbox answers it: a day of time a call, pages by number or by the last id."""

from __future__ import annotations

from typing import Any

from sandbox.kucoin.api import KEY, PASSPHRASE, SECRET, KucoinApi, KucoinHistory
from sandbox.ledgers.vendor import ledger_vendor
from sandbox.vendor import Pages


def _rows(answer: Any) -> list | None:
    data = answer.get("data") if isinstance(answer, dict) else None
    rows = data.get("items") if isinstance(data, dict) else data
    return rows if isinstance(rows, list) and rows and "bizType" in rows[0] else None


VENDOR = ledger_vendor(
    KucoinApi,
    KucoinHistory,
    Pages(_rows, lambda row: row.get("createdAt")),
    key=KEY,
    secret=SECRET,
    passphrase=PASSPHRASE,
)
