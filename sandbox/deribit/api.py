"""Deribit under /deribit: the transaction log and the summaries of the accounts.

https://docs.deribit.com/articles/authentication (deri-hmac-sha256 over time, nonce and request)
https://docs.deribit.com/api-reference/account-management/private-get_transaction_log
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from typing import Any

from starlette.responses import Response

from sandbox.ledgers.api import Asked, LedgerApi, Refused, number, signed
from sandbox.ledgers.history import Coin, LedgerHistory, Row, Shape
from sandbox.world.amounts import short_text

KEY, SECRET = "sandbox-deribit-key", "the sandbox's own secret of deribit"
CODES = {
    400: (-32602, "Invalid params"),
    401: (13004, "invalid_credentials"),
    403: (13021, "forbidden"),
    404: (-32601, "Method not found"),
    429: (10028, "too_many_requests"),
}
AUTHORIZATION = re.compile(r"deri-hmac-sha256 id=(.*),ts=(.*),sig=(.*),nonce=(.*)")


class DeribitHistory(LedgerHistory):
    shape = Shape(
        "deribit",
        wallets=("cash",),
        types={
            "deposit": "deposit",
            "withdrawal": "withdrawal",
            "trade": "trade",
            "conversion": "swap",
            "reward": "usdc_reward",
            "fee": "negative_balance_fee",
            "unknown": "quantum_rebate",
        },
        coins=(
            Coin("USDC", 6, 1_000_000),
            Coin("BTC", 8, 67_060_000_000),
            Coin("ETH", 6, 2_536_070_000),
        ),
        ids=lambda rng, number: str(61_312 + number),
    )


def deribit_error(status: int, _path: str, message: str | None = None) -> Response:
    code, usual = CODES.get(status, (11094, "internal_server_error"))
    body = {
        "jsonrpc": "2.0",
        "error": {"message": message or usual, "code": code},
        "testnet": False,
    }
    shown = 400 if status in (401, 403) else status
    return Response(json.dumps(body), shown, media_type="application/json")


class DeribitApi(LedgerApi):
    vendor = "deribit"
    error = staticmethod(deribit_error)

    def served(self) -> Iterable[tuple[str, str, Callable[[Asked, int], Any]]]:
        return (
            ("GET", "/api/v2/private/get_transaction_log", self.log),
            ("GET", "/api/v2/private/get_account_summaries", self.summaries),
        )

    def refused(self, asked: Asked) -> tuple[int, str] | None:
        found = AUTHORIZATION.fullmatch(asked.headers.get("authorization", ""))
        if not found or found[1] != KEY:
            return 401, "invalid_credentials"
        target = asked.path + (f"?{asked.query}" if asked.query else "")
        said = f"{found[2]}\n{found[4]}\n{asked.method}\n{target}\n\n"
        if found[3] != signed(SECRET, said):
            return 401, "invalid_credentials"
        return None

    def log(self, asked: Asked, now: int) -> dict:
        """Newest first, both ends included."""
        if not {"currency", "start_timestamp", "end_timestamp"} <= asked.params.keys():
            raise Refused(400, "Invalid params")
        start, end = asked.number("start_timestamp", 0), asked.number("end_timestamp", 0)
        rows = [
            row
            for row in reversed(self.history(now).visible(now))
            if row.coin.code == asked.params["currency"] and start * 1000 <= row.time <= end * 1000
        ]
        skip, count = asked.number("continuation", 0), min(asked.number("count", 100), 250)
        more = skip + count < len(rows)
        logs = [_row(row) for row in rows[skip : skip + count]]
        return _ok({"logs": logs, "continuation": skip + count if more else None})

    def summaries(self, _asked: Asked, now: int) -> dict:
        rows = [
            {"currency": coin.code, "balance": number(amount), "equity": number(amount)}
            for _, coin, amount in self.held(now)
        ]
        return _ok({"id": 1, "email": "", "summaries": rows})


def _ok(result: dict) -> dict:
    return {"jsonrpc": "2.0", "result": result, "testnet": False}


def _row(row: Row) -> dict:
    def amount(units: int) -> str:
        return number(short_text(units, row.coin.decimals))

    return {
        "id": number(row.id),
        "timestamp": number(str(row.time // 1000)),
        "type": row.type,
        "currency": row.coin.code,
        "change": amount(row.change),
        "cashflow": amount(row.change + row.fee),
        "commission": amount(row.fee),
        "balance": amount(row.balance),
        "trade_id": row.group,
        "order_id": row.group,
        "user_id": 1,
    }
