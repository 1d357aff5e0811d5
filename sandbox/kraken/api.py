"""Kraken under /kraken: Ledgers and BalanceEx, signed, errors inside HTTP 200.

https://docs.kraken.com/api/docs/rest-api/get-ledgers-info (50 a page, by offset; start exclusive)
https://docs.kraken.com/api/docs/guides/spot-rest-auth (API-Sign over path, nonce and body)
https://docs.kraken.com/api/docs/guides/spot-rest-ratelimits (a counter that falls with time)
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable, Iterable
from decimal import Decimal, InvalidOperation
from random import Random
from typing import Any

from starlette.responses import Response

from sandbox.ledgers.api import Asked, LedgerApi, Refused, number
from sandbox.ledgers.history import Coin, LedgerHistory, Row, Shape
from sandbox.world.moments import Clock
from sandbox.world.world import World

KEY = "sandbox-kraken-key"
SECRET = base64.b64encode(b"the sandbox's own secret of kraken, which opens nothing else").decode()
PAGE = 50
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
ERRORS = {
    400: "EGeneral:Invalid arguments",
    401: "EAPI:Invalid key",
    403: "EGeneral:Permission denied",
    404: "EGeneral:Unknown method",
    429: "EAPI:Rate limit exceeded",
}
# The code of the asset says the wallet: ADA.S is ADA that is staked, DOT.F earns.
SUFFIX = {"spot": "", "S": ".S", "F": ".F"}


def _id(rng: Random, _number: int) -> str:
    text = "".join(rng.choices(LETTERS, k=17))
    return f"L{text[:5]}-{text[5:11]}-{text[11:]}"


class KrakenHistory(LedgerHistory):
    shape = Shape(
        "kraken",
        wallets=("spot", "S", "F"),
        types={
            "deposit": "deposit",
            "withdrawal": "withdrawal",
            "trade": "trade",
            "conversion out": "spend",
            "conversion in": "receive",
            "transfer": "transfer/spottostaking",
            "reward": "staking",
            "fee": "rollover",
            "unknown": "quantumrebate",
        },
        coins=(
            Coin("ZUSD", 4, 1_000_000),
            Coin("XXBT", 10, 67_060_000_000),
            Coin("XETH", 10, 2_536_070_000),
            Coin("ADA", 8, 392_000),
            Coin("DOT", 10, 6_110_000),
        ),
        tick=100,
        ids=_id,
    )


def kraken_error(status: int, _path: str, message: str | None = None) -> Response:
    """What is wrong with a request is said with status 200; only a gateway answers otherwise."""
    said = message or ERRORS.get(status, "EService:Unavailable")
    return Response(
        json.dumps({"error": [said]}),
        200 if status < 500 else status,
        media_type="application/json",
    )


class KrakenApi(LedgerApi):
    vendor = "kraken"
    error = staticmethod(kraken_error)

    def __init__(self, world: World, clock: Clock) -> None:
        super().__init__(world, clock)
        self.nonce = 0

    def served(self) -> Iterable[tuple[str, str, Callable[[Asked, int], Any]]]:
        return (
            ("POST", "/0/private/Ledgers", self.ledgers),
            ("POST", "/0/private/BalanceEx", self.balances),
        )

    def refused(self, asked: Asked) -> tuple[int, str] | None:
        if asked.headers.get("api-key") != KEY:
            return 401, "EAPI:Invalid key"
        nonce = str(asked.params.get("nonce", ""))
        digest = hashlib.sha256((nonce + asked.body).encode()).digest()
        signed = hmac.new(base64.b64decode(SECRET), asked.path.encode() + digest, hashlib.sha512)
        if asked.headers.get("api-sign") != base64.b64encode(signed.digest()).decode():
            return 401, "EAPI:Invalid signature"
        if not nonce.isdigit() or int(nonce) <= self.nonce:
            return 400, "EAPI:Invalid nonce"
        self.nonce = int(nonce)
        return None

    def ledgers(self, asked: Asked, now: int) -> dict:
        start, end = (_micros(asked, name) for name in ("start", "end"))
        rows = [
            row
            for row in reversed(self.history(now).visible(now))
            if (start is None or row.time > start) and (end is None or row.time <= end)
        ]
        skip = asked.number("ofs", 0)
        page = {row.id: _row(row) for row in rows[skip : skip + PAGE]}
        return {"error": [], "result": {"ledger": page, "count": len(rows)}}

    def balances(self, _asked: Asked, now: int) -> dict:
        held = self.history(now).balances_at(now)
        rows = {
            coin.code + SUFFIX[wallet]: {
                "balance": _digits(units, coin),
                "hold_trade": _digits(0, coin),
            }
            for (wallet, coin), units in held.items()
        }
        return {"error": [], "result": rows}


def _micros(asked: Asked, name: str) -> int | None:
    text = asked.params.get(name)
    try:
        return None if text in (None, "") else int(Decimal(str(text)) * 10**6)
    except InvalidOperation:
        raise Refused(400, f"EGeneral:Invalid arguments:{name}") from None


def _digits(units: int, coin: Coin) -> str:
    from sandbox.world.amounts import decimal_text

    return decimal_text(units, coin.decimals)


def _row(row: Row) -> dict:
    """Amounts do not hold their fee; the time is a number with a fraction."""
    kind, _, subtype = row.type.partition("/")
    whole, part = divmod(row.time, 10**6)
    return {
        "aclass": "currency",
        "amount": row.amount(row.change + row.fee),
        "asset": row.coin.code + SUFFIX[row.wallet],
        "balance": row.amount(row.balance),
        "fee": row.amount(row.fee),
        "refid": row.group,
        "time": number(f"{whole}.{part // 100:04d}"),
        "type": kind,
        "subtype": subtype,
    }
