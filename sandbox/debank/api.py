"""DeBank Cloud OpenAPI under /debank/v1: histories, balances and units of any address.

https://docs.cloud.debank.com/en/readme/api-pro-reference/user (20 items a page, newest first)
https://docs.cloud.debank.com/en/readme/auxiliary-feature/units (30 days of statistics)
`start_time` is an upper bound. Whether an equal time belongs to the page is not documented, so
the sandbox does either: `inclusive`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from math import isfinite
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from sandbox.debank import responses
from sandbox.debank.errors import debank_error
from sandbox.debank.keys import DEBANK_KEY
from sandbox.faults.limits import NoLimit, SlidingSecond
from sandbox.vendor import Api
from sandbox.world.chain_records import Tx
from sandbox.world.mess_tokens import ALL_CHAINS
from sandbox.world.moments import Clock, iso
from sandbox.world.tokens import Token

if TYPE_CHECKING:
    from sandbox.debank.history import DebankHistory
    from sandbox.world.world import World

PAGE_MAX = 20
STATS_DAYS = 30
CALLS_A_SECOND = 100
# The vendor does not publish its prices: these are the sandbox's own.
PRICES = {
    "user/history_list": 6,
    "user/all_history_list": 20,
    "user/token_list": 3,
    "user/all_token_list": 10,
    "user/used_chain_list": 2,
    "user/total_balance": 10,
    "user/all_complex_protocol_list": 30,
    "account/units": 0,
}
START_BALANCE = 1_000_000
_ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}")


class Invalid(Exception):
    """parameter, complaint: answered with 400 in the vendor's shape."""


def _required(query, name: str) -> str:
    if not (value := query.get(name)):
        raise Invalid(name, f"Missing required parameter in the query string {name}")
    return value


def _address(query) -> str:
    address = _required(query, "id")
    if not _ADDRESS.fullmatch(address):
        raise Invalid("id", f"{address} is not a valid address")
    return address.lower()


def _chain(chain_id: str) -> str:
    if chain_id not in ALL_CHAINS:
        raise Invalid("chain_id", f"{chain_id} is not a supported chain")
    return chain_id


def _chains(query) -> frozenset[str] | None:
    text = query.get("chain_ids")
    return frozenset(_chain(name.strip()) for name in text.split(",")) if text else None


def _flag(query, name: str, default: bool) -> bool:
    text = query.get(name, str(default)).lower()
    if text not in ("true", "false", "1", "0"):
        raise Invalid(name, f"{text} is not a boolean")
    return text in ("true", "1")


class DebankApi(Api):
    """`inclusive`: whether start_time includes its own second; None takes the seed's parity (odd
    seeds include it). `prices`: units per call, merged over PRICES; `units`: how many it has."""

    def __init__(
        self,
        world: World,
        clock: Clock,
        inclusive: bool | None = None,
        prices: dict[str, int] | None = None,
        units: int = START_BALANCE,
    ) -> None:
        self.world, self.clock = world, clock
        self.inclusive = world.seed % 2 == 1 if inclusive is None else inclusive
        self.history: DebankHistory = world.histories["debank"]
        self.prices, self.balance = PRICES | (prices or {}), units
        self.spent: dict[str, int] = {}  # by the sandbox's date, as account/units reports it
        self.units_spent = 0  # since the counts were reset
        self.second = SlidingSecond(CALLS_A_SECOND)

    def lift_limits(self) -> None:
        self.second = NoLimit()

    def facts(self) -> dict[str, Any]:
        return {"inclusive": self.inclusive}

    def routes(self) -> list[Route]:
        served = {
            "user/history_list": self.history_list,
            "user/all_history_list": self.all_history_list,
            "user/token_list": self.token_list,
            "user/all_token_list": self.all_token_list,
            "user/used_chain_list": self.used_chain_list,
            "user/total_balance": self.total_balance,
            "user/all_complex_protocol_list": self.all_complex_protocol_list,
            "account/units": self.units,
        }
        return [
            Route(f"/debank/v1/{name}", self._guarded(name, answer))
            for name, answer in served.items()
        ]

    def _guarded(self, name: str, answer: Callable):
        async def endpoint(request: Request) -> Response:
            if request.headers.get("accesskey") != DEBANK_KEY:
                return debank_error(401)
            if not self.second.allows():
                return debank_error(429)
            price = self.prices[name]
            if price > self.balance:
                return debank_error(403)
            now = self.clock.now()
            self.world.grown("debank", now)
            try:
                body = answer(request.query_params, now)
            except Invalid as error:
                parameter, complaint = error.args
                body = {
                    "errors": {parameter: complaint},
                    "message": "Input payload validation failed",
                }
                return Response(json.dumps(body), 400, media_type="application/json")
            self.balance -= price
            self.units_spent += price
            date = iso(now)[:10]
            self.spent[date] = self.spent.get(date, 0) + price
            return Response(
                body if isinstance(body, str) else json.dumps(body), media_type="application/json"
            )

        return endpoint

    def _history(self, query, now: int, chain: str | None, wanted: Callable[[Tx], bool]) -> str:
        address, bound, count = _address(query), None, query.get("page_count") or str(PAGE_MAX)
        if text := query.get("start_time"):
            try:
                bound = float(text)  # a moment, not money; 0 means the most recent
            except ValueError:
                bound = -1.0
            if not isfinite(bound) or bound < 0:
                raise Invalid("start_time", f"{text} is not a timestamp")
        if not count.isdigit() or int(count) == 0:
            raise Invalid("page_count", f"{count} is not a positive integer")
        page = self.history.newest(
            address,
            now,
            min(int(count), PAGE_MAX),
            chain=chain,
            bound=bound or None,
            inclusive=self.inclusive,
            wanted=wanted,
        )
        return responses.history(page, now)

    def history_list(self, query, now: int) -> str:
        chain, token_id = _chain(_required(query, "chain_id")), query.get("token_id")
        return self._history(
            query,
            now,
            chain,
            lambda tx: not token_id or any(leg.token.id == token_id for leg in tx.legs_at(now)),
        )

    def all_history_list(self, query, now: int) -> str:
        chains = _chains(query)
        return self._history(query, now, None, lambda tx: chains is None or tx.chain in chains)

    def _tokens(self, query, now: int, wanted: Callable[[Token], bool]) -> list[dict]:
        everything = _flag(query, "is_all", True)
        return [
            responses.balance(token, units)
            for token, units in self.history.reported_units(_address(query), now).items()
            if units and wanted(token) and (everything or token.is_verified)
        ]

    def token_list(self, query, now: int) -> list[dict]:
        chain = _chain(_required(query, "chain_id"))
        return self._tokens(query, now, lambda token: token.chain == chain)

    def all_token_list(self, query, now: int) -> list[dict]:
        chains = _chains(query)
        return self._tokens(query, now, lambda token: chains is None or token.chain in chains)

    def used_chain_list(self, query, now: int) -> list[dict]:
        born: dict[str, int] = {}
        for tx in self.history.txs(_address(query), now):
            born.setdefault(tx.chain, tx.time)
        return [
            responses.chain(chain) | {"born_at": born[chain]}
            for chain in ALL_CHAINS
            if chain in born
        ]

    def total_balance(self, query, now: int) -> dict:
        return responses.total(self.history.reported_units(_address(query), now))

    def all_complex_protocol_list(self, query, now: int) -> list[dict]:
        chains = _chains(query)
        deposits = self.history.deposited(_address(query), now)
        wanted = [one for one in deposits if chains is None or one.token.chain in chains]
        return responses.protocols(wanted, now)

    def units(self, _query, now: int) -> dict:
        return responses.units(self.balance, self.spent, now, STATS_DAYS)
