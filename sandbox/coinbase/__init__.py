"""Coinbase's API as the sandbox answers it."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Mapping
from typing import Any

from sandbox.coinbase.api import CoinbaseApi
from sandbox.coinbase.errors import coinbase_error
from sandbox.coinbase.history import CoinbaseHistory
from sandbox.coinbase.keys import KEY_NAME, KEY_PEM
from sandbox.vendor import Pages, Vendor


def _rows(answer: Any) -> list | None:
    """v2 has its rows in `data`, v3 its fills in `fills`."""
    lists = (answer.get(name) for name in ("data", "fills")) if isinstance(answer, dict) else ()
    return next((rows for rows in lists if isinstance(rows, list)), None)


def _time(row: Any) -> object:
    return next((row[name] for name in ("created_at", "sequence_timestamp") if name in row), None)


def _more(answer: dict, rows: list, _asked: Mapping[str, str]) -> bool:
    if "pagination" in answer:
        answer["pagination"]["next_starting_after"] = rows[-1]["id"]
    else:
        answer["cursor"] = answer["cursor"] or "0-more"
    return True


def _again(answer: dict, asked: Mapping[str, str]) -> bool:
    cursor = asked.get("starting_after") or asked.get("cursor")
    if not cursor:
        return False
    if "pagination" in answer:
        answer["pagination"]["next_starting_after"] = cursor
    else:
        answer["cursor"] = cursor
    return True


def _flags(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--wallets",
        type=int,
        help="Coinbase wallets beside the ten that move (default: 50 with --mess yes, else 0)",
    )


VENDOR = Vendor(
    "coinbase",
    api=CoinbaseApi,
    history=CoinbaseHistory,
    error=coinbase_error,
    accounts=({"account": "main", "connection": "coinbase_main"},),
    connection=lambda url: {"host": url, "login": KEY_NAME, "password": KEY_PEM},
    pages=Pages(_rows, _time, _more, _again),
    history_options=("wallets",),
    flags=_flags,
)
