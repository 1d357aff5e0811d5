"""Gate under /gate: the account book and the accounts of spot.

https://www.gate.com/docs/developers/apiv4/en/#api-signature-string-generation (HMAC-SHA512)
https://www.gate.com/docs/developers/apiv4/en/#query-spot-account-transaction-history
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import unquote

from starlette.responses import Response

from sandbox.ledgers.api import Asked, LedgerApi, Refused, number, signed
from sandbox.ledgers.history import Coin, LedgerHistory, Row, Shape
from sandbox.world.moments import DAY

KEY, SECRET = "sandbox-gate-key", "the sandbox's own secret of gate"
LABELS = {
    400: ("INVALID_PARAM_VALUE", "invalid argument"),
    401: ("INVALID_SIGNATURE", "Signature mismatch"),
    403: ("FORBIDDEN", "No permission"),
    404: ("NOT_FOUND", "Not found"),
    429: ("TOO_MANY_REQUESTS", "Request Rate limit Exceeded"),
}


class GateHistory(LedgerHistory):
    """Fees are rows of their own."""

    shape = Shape(
        "gate",
        wallets=("spot",),
        types={
            "deposit": "deposit",
            "withdrawal": "withdraw",
            "withdrawal fee": "withdraw",
            "trade": "order_fill",
            "trade fee": "order_fee",
            "conversion": "convert",
            "reward": "airdrop",
            "fee": "point_fee",
            "unknown": "quantum_rebate",
        },
        coins=(
            Coin("USDT", 14, 1_000_000),
            Coin("BTC", 12, 67_060_000_000),
            Coin("GT", 8, 7_200_000),
            Coin("ETH", 18, 2_536_070_000),
        ),
        ids=lambda rng, number: str(40_558_668_000 + number * 3),
        fee_rows=True,
    )


def gate_error(status: int, _path: str, message: str | None = None) -> Response:
    label, usual = LABELS.get(status, ("SERVER_ERROR", "Internal server error"))
    body = {"label": label, "message": message or usual}
    return Response(json.dumps(body), status, media_type="application/json")


class GateApi(LedgerApi):
    vendor = "gate"
    error = staticmethod(gate_error)

    def served(self) -> Iterable[tuple[str, str, Callable[[Asked, int], Any]]]:
        return (
            ("GET", "/api/v4/spot/account_book", self.book),
            ("GET", "/api/v4/spot/accounts", self.accounts),
        )

    def refused(self, asked: Asked) -> tuple[int, str] | None:
        head, empty = asked.headers, hashlib.sha512(b"").hexdigest()
        if head.get("key") != KEY:
            return 401, "Invalid key provided"
        said = "\n".join(
            (asked.method, asked.path, unquote(asked.query), empty, head.get("timestamp", ""))
        )
        if head.get("sign") != signed(SECRET, said, "sha512"):
            return 401, "Signature mismatch"
        return None

    def book(self, asked: Asked, now: int) -> list:
        """Newest first; whole seconds, both included; at most thirty days and 100,000 rows."""
        end = asked.number("to", now)
        start = asked.number("from", end - 7 * DAY)
        limit, page = min(asked.number("limit", 100), 1000), asked.number("page", 1)
        if end - start > 30 * DAY:
            raise Refused(400, "time range is more than 30 days")
        if limit * (page - 1) > 100_000:
            raise Refused(400, "limit * (page - 1) exceeds 100000")
        rows = [
            row
            for row in reversed(self.history(now).visible(now))
            if start * 10**6 <= row.time <= end * 10**6
        ]
        return [_row(row) for row in rows[(page - 1) * limit : page * limit]]

    def accounts(self, _asked: Asked, now: int) -> list:
        return [
            {"currency": coin.code, "available": amount, "locked": "0", "update_id": 1}
            for _, coin, amount in self.held(now)
        ]


def _row(row: Row) -> dict:
    return {
        "id": row.id,
        "time": number(str(row.time // 1000)),
        "currency": row.coin.code,
        "change": row.amount(row.change),
        "balance": row.amount(row.balance),
        "type": row.type,
        "text": row.group,
    }
