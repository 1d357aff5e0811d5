"""KuCoin under /kucoin: the old ledger and that of the high-frequency account, and balances.

https://www.kucoin.com/docs-new/authentication (HMAC over time, method and path; signed passphrase)
https://www.kucoin.com/docs-new/rest/account-info/account-funding/get-account-ledgers-spot-margin
The old ledger states balance 0, as public captures of it do.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

from starlette.responses import Response

from sandbox.ledgers.api import Asked, LedgerApi, Refused, number, signed
from sandbox.ledgers.history import Coin, LedgerHistory, Row, Shape
from sandbox.world.moments import DAY

KEY, SECRET, PASSPHRASE = "sandbox-kucoin-key", "the sandbox's own secret of kucoin", "sandbox-pass"
CODES = {
    400: ("400100", "Parameter Error"),
    401: ("400005", "Invalid KC-API-SIGN"),
    403: ("400007", "Access denied"),
    404: ("404000", "Url Not Found"),
    429: ("429000", "Too Many Requests"),
}
HF = "TRADE_HF"


class KucoinHistory(LedgerHistory):
    shape = Shape(
        "kucoin",
        wallets=(HF, "MAIN"),
        types={
            "deposit": "Deposit",
            "withdrawal": "Withdrawal",
            "trade": "TRADE_EXCHANGE",
            "conversion": "Convert",
            "transfer": "Transfer",
            "reward": "Staking Profits",
            "fee": "KCS Pay Fees",
            "unknown": "Quantum Rebate",
        },
        coins=(
            Coin("USDT", 8, 1_000_000),
            Coin("BTC", 10, 67_060_000_000),
            Coin("KCS", 8, 9_800_000),
            Coin("SOL", 9, 148_250_000),
        ),
        ids=lambda rng, number: str(254_000_000_000_000 + number),
    )

    def truth(self, row: Row, now: int) -> dict:
        return super().truth(row, now) | ({} if row.wallet == HF else {"balance": None})


def kucoin_error(status: int, _path: str, message: str | None = None) -> Response:
    code, usual = CODES.get(status, ("500000", "Internal Server Error"))
    body = {"code": code, "msg": message or usual}
    return Response(
        json.dumps(body), 200 if status in (400, 403) else status, media_type="application/json"
    )


class KucoinApi(LedgerApi):
    vendor = "kucoin"
    error = staticmethod(kucoin_error)
    an_hour = 240_000

    def served(self) -> Iterable[tuple[str, str, Callable[[Asked, int], Any]]]:
        return (
            ("GET", "/api/v1/accounts/ledgers", self.old),
            ("GET", "/api/v1/hf/accounts/ledgers", self.fast),
            ("GET", "/api/v1/accounts", self.balances),
        )

    def refused(self, asked: Asked) -> tuple[int, str] | None:
        head = asked.headers
        if head.get("kc-api-key") != KEY:
            return 401, "Invalid KC-API-KEY"
        if head.get("kc-api-passphrase") != signed(SECRET, PASSPHRASE, form="base64"):
            return 401, "Invalid KC-API-PASSPHRASE"
        target = asked.path + (f"?{asked.query}" if asked.query else "")
        said = f"{head.get('kc-api-timestamp')}{asked.method}{target}"
        if head.get("kc-api-sign") != signed(SECRET, said, form="base64"):
            return 401, "Invalid KC-API-SIGN"
        return None

    def _day(self, asked: Asked, now: int, wallets: tuple[str, ...]) -> list[Row]:
        """Rows of at most a day, newest first, both ends included."""
        end = asked.number("endAt", now * 1000)
        start = asked.number("startAt", end - DAY * 1000)
        if end - start > DAY * 1000:
            raise Refused(400, "Query time range exceeds the limit, not in the given range!")
        if start < (now - 366 * DAY) * 1000:
            raise Refused(400, "startAt is more than a year ago, not in the given range!")
        return [
            row
            for row in reversed(self.history(now).visible(now))
            if row.wallet in wallets and start * 1000 <= row.time <= end * 1000
        ]

    def old(self, asked: Asked, now: int) -> dict:
        rows = self._day(asked, now, ("MAIN",))
        size = min(max(asked.number("pageSize", 50), 10), 500)
        page = asked.number("currentPage", 1)
        data = {
            "currentPage": page,
            "pageSize": size,
            "totalNum": len(rows),
            "totalPage": -(-len(rows) // size),
            "items": [_row(row, "0") for row in rows[(page - 1) * size : page * size]],
        }
        return {"code": "200000", "data": data}

    def fast(self, asked: Asked, now: int) -> dict:
        last = asked.number("lastId", 2**62)
        rows = [row for row in self._day(asked, now, (HF,)) if int(row.id) < last]
        size = min(asked.number("limit", 100), 200)
        return {"code": "200000", "data": [_row(r, r.amount(r.balance)) for r in rows[:size]]}

    def balances(self, _asked: Asked, now: int) -> dict:
        rows = [
            {
                "id": f"{wallet}{coin.code}",
                "currency": coin.code,
                "type": wallet.lower(),
                "balance": amount,
                "available": amount,
                "holds": "0",
            }
            for wallet, coin, amount in self.held(now)
        ]
        return {"code": "200000", "data": rows}


def _row(row: Row, balance: str) -> dict:
    """The amount holds the fee; `direction` has the sign."""
    return {
        "id": row.id,
        "currency": row.coin.code,
        "amount": row.amount(abs(row.change)),
        "fee": row.amount(row.fee),
        "tax": "0",
        "balance": balance,
        "accountType": row.wallet,
        "bizType": row.type,
        "direction": "out" if row.change < 0 else "in",
        "createdAt": number(str(row.time // 1000)),
        "context": json.dumps({"orderId": row.group}),
    }
