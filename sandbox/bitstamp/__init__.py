"""Bitstamp as the sandbox answers it: a column for each currency, pages by offset, no balances."""

from __future__ import annotations

from typing import Any

from sandbox.bitstamp.api import KEY, SECRET, BitstampApi, BitstampHistory, bitstamp_error
from sandbox.vendor import Pages, Vendor


def _rows(answer: Any) -> list | None:
    return answer if isinstance(answer, list) and answer and "datetime" in answer[0] else None


VENDOR = Vendor(
    "bitstamp",
    api=BitstampApi,
    history=BitstampHistory,
    error=bitstamp_error,
    accounts=({"account": "main", "connection": "bitstamp_main"},),
    connection=lambda url: {"host": url, "login": KEY, "password": SECRET},
    pages=Pages(_rows, lambda row: row.get("datetime")),
    in_demo=False,
)
