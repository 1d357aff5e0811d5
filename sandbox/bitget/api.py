"""Bitget under /bitget: bills and assets of the spot account.

https://www.bitget.com/api-doc/common/signature (HMAC over time, method, path and query)
https://www.bitget.com/api-doc/spot/account/Get-Account-Bills
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

from starlette.responses import Response

from sandbox.ledgers.api import Asked, LedgerApi, Refused, signed
from sandbox.ledgers.history import Coin, LedgerHistory, Row, Shape
from sandbox.world.amounts import decimal_text
from sandbox.world.moments import DAY

KEY, SECRET, PASSPHRASE = "sandbox-bitget-key", "the sandbox's own secret of bitget", "sandbox-pass"
CODES = {
    400: ("40017", "Parameter verification failed"),
    401: ("40009", "sign signature error"),
    403: ("40014", "Incorrect permissions"),
    404: ("40404", "Request URL NOT FOUND"),
    429: ("429", "Too Many Requests"),
}


class BitgetHistory(LedgerHistory):
    shape = Shape(
        "bitget",
        wallets=("spot",),
        types={
            "deposit": "deposit",
            "withdrawal": "withdraw",
            "trade out": "sell",
            "trade in": "buy",
            "conversion": "convert",
            "reward": "airdrop",
            "fee": "interest",
            "unknown": "quantum_rebate",
        },
        coins=(
            Coin("USDT", 8, 1_000_000),
            Coin("BTC", 10, 67_060_000_000),
            Coin("BGB", 8, 4_100_000),
            Coin("SOL", 9, 148_250_000),
        ),
        ids=lambda rng, number: str(1_111_506_298_997_000_000 + number * 100),
    )


def bitget_error(status: int, _path: str, message: str | None = None) -> Response:
    code, usual = CODES.get(status, ("40725", "service return an error"))
    body = {"code": code, "msg": message or usual, "requestTime": 1, "data": None}
    return Response(json.dumps(body), status, media_type="application/json")


class BitgetApi(LedgerApi):
    vendor = "bitget"
    error = staticmethod(bitget_error)

    def served(self) -> Iterable[tuple[str, str, Callable[[Asked, int], Any]]]:
        return (
            ("GET", "/api/v2/spot/account/bills", self.bills),
            ("GET", "/api/v2/spot/account/assets", self.assets),
        )

    def refused(self, asked: Asked) -> tuple[int, str] | None:
        head = asked.headers
        if head.get("access-key") != KEY or head.get("access-passphrase") != PASSPHRASE:
            return 401, "apikey/password is incorrect"
        target = asked.path + (f"?{asked.query}" if asked.query else "")
        said = f"{head.get('access-timestamp')}{asked.method}{target}"
        if head.get("access-sign") != signed(SECRET, said, form="base64"):
            return 401, "sign signature error"
        return None

    def bills(self, asked: Asked, now: int) -> dict:
        """Newest first, both times included, at most ninety days."""
        end = asked.number("endTime", now * 1000)
        start = asked.number("startTime", end - 90 * DAY * 1000)
        if end - start > 90 * DAY * 1000:
            raise Refused(400, "startTime and endTime are more than 90 days apart")
        last = asked.number("idLessThan", 2**62)
        since = max(start, (now - 90 * DAY) * 1000)
        rows = [
            _bill(row)
            for row in reversed(self.history(now).visible(now))
            if since * 1000 <= row.time <= end * 1000 and int(row.id) < last
        ]
        return _ok(rows[: min(asked.number("limit", 100), 500)])

    def assets(self, _asked: Asked, now: int) -> dict:
        """A tenth of each balance is locked in orders."""
        rows = []
        for (_, coin), units in self.history(now).balances_at(now).items():
            frozen = units // 10
            rows.append(
                {
                    "coin": coin.code,
                    "available": decimal_text(units - frozen, coin.decimals),
                    "frozen": decimal_text(frozen, coin.decimals),
                    "locked": "0",
                    "limitAvailable": "0",
                    "uTime": str(now * 1000),
                }
            )
        return _ok(rows)


def _ok(data: list) -> dict:
    return {"code": "00000", "msg": "success", "requestTime": 1, "data": data}


def _bill(row: Row) -> dict:
    return {
        "cTime": str(row.time // 1000),
        "coin": row.coin.code,
        "groupType": row.event,
        "businessType": row.type,
        "size": row.amount(row.change + row.fee),
        "balance": row.amount(row.balance),
        "fees": row.amount(-row.fee),
        "billId": row.id,
    }
