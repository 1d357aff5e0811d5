"""DeBank's API as the sandbox answers it."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Mapping
from typing import Any

from sandbox.debank.api import START_BALANCE, DebankApi
from sandbox.debank.errors import debank_error
from sandbox.debank.history import DebankHistory
from sandbox.debank.keys import DEBANK_KEY
from sandbox.vendor import Pages, Vendor
from sandbox.world.tokens import WALLETS


def _rows(answer: Any) -> list | None:
    rows = answer.get("history_list") if isinstance(answer, dict) else None
    return rows if isinstance(rows, list) else None


def _more(_answer: Any, rows: list, asked: Mapping[str, str]) -> bool:
    """No rows in the middle of a walk. There are no cursors: a walk goes on one second after its
    last row, so that row is first."""
    return asked.get("start_time") == str(int(rows[0]["time_at"]) + 1)


def _yes_no_seed(text: str) -> bool | None:
    said = {"yes": True, "no": False, "seed": None}
    if text not in said:
        raise ArgumentTypeError(f"write yes, no or seed, not {text}")
    return said[text]


def _flags(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--inclusive",
        type=_yes_no_seed,
        metavar="{yes,no,seed}",
        default=None,
        help="whether DeBank's start_time includes its own second (seed: by parity, odd is yes)",
    )
    parser.add_argument(
        "--units", type=int, default=START_BALANCE, help="DeBank units at the start"
    )


VENDOR = Vendor(
    "debank",
    api=DebankApi,
    history=DebankHistory,
    error=debank_error,
    accounts=tuple({"account": wallet, "connection": "debank"} for wallet in WALLETS),
    connection=lambda url: {"host": url, "login": "", "password": DEBANK_KEY},
    pages=Pages(_rows, lambda row: row.get("time_at"), _more),
    sells_units=True,
    api_options=("inclusive", "prices", "units"),
    flags=_flags,
)
