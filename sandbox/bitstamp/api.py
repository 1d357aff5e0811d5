"""Bitstamp under /bitstamp: user_transactions and account_balances.

https://www.bitstamp.net/api/#section/Authentication (HMAC over key, method, address, nonce, time)
https://www.bitstamp.net/api/#tag/Transactions-private/operation/GetUserTransactions

One row tells of both legs of a trade; the fee is apart, in the quote currency.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from itertools import groupby
from typing import Any

from starlette.responses import Response

from sandbox.ledgers.api import Asked, LedgerApi, Refused, number, signed
from sandbox.ledgers.history import Coin, LedgerHistory, Row, Shape
from sandbox.world.moments import iso_micros

KEY, SECRET = "sandbox-bitstamp-key", "the sandbox's own secret of bitstamp"
ERRORS = {
    401: ("API0005", "Invalid signature"),
    403: ("API0013", "No permission found"),
    404: ("404.002", "Not found"),
    429: ("400.002", "Request rate limit exceeded."),
}


class BitstampHistory(LedgerHistory):
    """Fees are in the quote, the first of the coins."""

    shape = Shape(
        "bitstamp",
        wallets=("spot",),
        types={
            "deposit": "0",
            "withdrawal": "1",
            "trade": "2",
            "conversion": "2",
            "reward": "27",
            "fee": "35",
            "unknown": "777",
        },
        coins=(
            Coin("USD", 2, 1_000_000),
            Coin("BTC", 8, 67_060_000_000),
            Coin("ETH", 8, 2_536_070_000),
            Coin("XRP", 8, 512_000),
        ),
        tick=1,
        fee_in_quote=True,
    )

    def transactions(self, now: int) -> list[list[Row]]:
        """Rows of the ledger by the transaction that lists them, oldest first."""
        shown = self.visible(now)
        return [list(rows) for _, rows in groupby(shown, key=lambda row: row.group)]

    def truths(self):
        def ledger(now: int) -> list[dict]:
            return [
                self.truth(row, now)
                | {"entry_id": f"{rows[0].id}:{row.coin.code}", "balance": None}
                for rows in self.transactions(now)
                for row in rows
            ]

        return {"ledger": ledger}


def bitstamp_error(status: int, path: str, message: str | None = None) -> Response:
    code, usual = ERRORS.get(
        status, ("API0001", "Bitstamp.net is under scheduled maintenance. We'll be back soon.")
    )
    body = {"status": "error", "reason": message or usual, "code": code}
    return Response(json.dumps(body), status, media_type="application/json")


class BitstampApi(LedgerApi):
    vendor = "bitstamp"
    error = staticmethod(bitstamp_error)
    an_hour = 60_000

    def served(self) -> Iterable[tuple[str, str, Callable[[Asked, int], Any]]]:
        return (
            ("POST", "/api/v2/user_transactions/", self.transactions),
            ("POST", "/api/v2/account_balances/", self.balances),
        )

    def refused(self, asked: Asked) -> tuple[int, str] | None:
        head = asked.headers
        if head.get("x-auth") != f"BITSTAMP {KEY}":
            return 403, "API key not found"
        # The address that was signed has the host, too: whatever this one is called.
        address = f"{asked.url.removeprefix('https://')}"
        said = (
            f"BITSTAMP {KEY}{asked.method}{address}{head.get('content-type', '')}"
            f"{head.get('x-auth-nonce')}{head.get('x-auth-timestamp')}v2{asked.body}"
        )
        if head.get("x-auth-signature") != signed(SECRET, said):
            return 403, "Invalid signature"
        return None

    def transactions(self, asked: Asked, now: int) -> list:
        offset, limit = asked.number("offset", 0), asked.number("limit", 100)
        if not 0 <= limit <= 1000 or offset > 200_000:
            raise Refused(400, "Invalid offset.")
        listed = self.history(now).transactions(now)
        if asked.params.get("sort", "desc") == "desc":
            listed = listed[::-1]
        return [_transaction(rows) for rows in listed[offset : offset + limit]]

    def balances(self, _asked: Asked, now: int) -> list:
        return [
            {
                "currency": coin.code.lower(),
                "total": amount,
                "available": amount,
                "reserved": "0.00",
            }
            for _, coin, amount in self.held(now)
        ]


def _transaction(rows: list[Row]) -> dict:
    """Amounts do not hold their fee; a column that is not moved is 0, as text or as a number."""
    first = rows[0]
    record: dict[str, Any] = {
        "id": number(first.id),
        "datetime": iso_micros(first.time)[:-1].replace("T", " "),
        "type": first.type,
        "fee": next((row.amount(row.fee) for row in rows if row.fee), "0.00000000"),
        "usd": number("0.0"),
        "eur": number("0.0"),
    }
    if first.type == "2":
        pair = sorted(rows, key=lambda row: row.coin.code == "USD")
        record[f"{pair[0].coin.code.lower()}_{pair[-1].coin.code.lower()}"] = "1.00"
        record["order_id"] = number("857979733")
    for row in rows:
        record[row.coin.code.lower()] = row.amount(row.change + row.fee)
    return record
