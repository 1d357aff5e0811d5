"""Routes of a ledger exchange: a key that is checked, a limit that is kept, numbers as JSON has them."""

from __future__ import annotations

import base64
import hmac
import json
import re
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from sandbox.faults.limits import Bucket, NoLimit
from sandbox.ledgers.history import Coin, LedgerHistory
from sandbox.vendor import Api
from sandbox.world.amounts import decimal_text
from sandbox.world.moments import Clock
from sandbox.world.world import World

_NUMBER = re.compile(r'"#number ([-+0-9.eE]+)"')


class Refused(Exception):
    """status, message: answered in the vendor's error shape."""


def number(text: str) -> str:
    """A bare JSON number with exactly these digits."""
    return f"#number {text}"


def dumps(answer: Any) -> str:
    return _NUMBER.sub(r"\1", json.dumps(answer))


def signed(secret: str | bytes, said: str, digest: str = "sha256", form: str = "hex") -> str:
    """An HMAC as hex or base64 text."""
    key = secret.encode() if isinstance(secret, str) else secret
    made = hmac.new(key, said.encode(), digest)
    return made.hexdigest() if form == "hex" else base64.b64encode(made.digest()).decode()


@dataclass(frozen=True)
class Asked:
    """A request: `path` without the vendor's name, `params` of query and body, `url` without a query."""

    method: str
    path: str
    query: str
    body: str
    headers: Mapping[str, str]
    params: Mapping[str, Any]
    in_path: Mapping[str, Any]
    url: str

    def number(self, name: str, default: int) -> int:
        """A whole number among the parameters; Refused where it is none."""
        text = str(self.params.get(name, default))
        if not re.fullmatch(r"-?[0-9]+", text):
            raise Refused(400, f"{name} is {text}, no whole number")
        return int(text)


class LedgerApi(Api):
    """Subclasses say what is `served`, who is `refused`, and how an `error` is answered."""

    vendor: str
    error: Callable[..., Response]  # (status, path, message): an answer in the vendor's own shape
    an_hour = 36_000

    def __init__(self, world: World, clock: Clock) -> None:
        self.world, self.clock, self.limit = world, clock, Bucket(self.an_hour)

    @abstractmethod
    def served(self) -> Iterable[tuple[str, str, Callable[[Asked, int], Any]]]:
        """(method, path, answer) of every private route; an answer takes (request, now)."""

    @abstractmethod
    def refused(self, asked: Asked) -> tuple[int, str] | None:
        """(status, message) for a request whose key or signature is wrong."""

    def headers(self, answer: Any) -> Mapping[str, str]:
        """Headers of an answer, for those that page by them."""
        return {}

    def history(self, now: int) -> LedgerHistory:
        return self.world.grown(self.vendor, now)

    def held(self, now: int, wallet: str = "") -> list[tuple[str, Coin, str]]:
        """(wallet, coin, text of the balance) of one wallet, or of all."""
        return [
            (name, coin, decimal_text(units, coin.decimals))
            for (name, coin), units in self.history(now).balances_at(now).items()
            if wallet in ("", name)
        ]

    def allows(self, path: str) -> bool:
        """Whether a call of the path is within the limits; it counts."""
        return self.limit.allows()

    def lift_limits(self) -> None:
        self.limit = NoLimit()

    def routes(self) -> list[Route]:
        routes = [
            Route(f"/{self.vendor}{path}", self._guarded(answer), methods=[method])
            for method, path, answer in self.served()
        ]
        return [*routes, Route(f"/{self.vendor}/{{rest:path}}", self._nothing)]

    async def _nothing(self, request: Request) -> Response:
        return self.error(404, request.scope["path"].removeprefix(f"/{self.vendor}"))

    def _guarded(self, answer: Callable[[Asked, int], Any]) -> Callable:
        async def endpoint(request: Request) -> Response:
            path = request.scope["path"].removeprefix(f"/{self.vendor}")
            body, query = (await request.body()).decode(), request.scope["query_string"].decode()
            sent = json.loads(body) if body.startswith(("{", "[")) else dict(parse_qsl(body))
            asked = Asked(
                request.method,
                path,
                query,
                body,
                request.headers,
                {**dict(parse_qsl(query)), **sent},
                request.path_params,
                str(request.url.replace(query="")),
            )
            if not self.allows(path):
                return self.error(429, path)
            if why := self.refused(asked):
                return self.error(why[0], path, why[1])
            try:
                given = answer(asked, self.clock.now())
            except Refused as error:
                return self.error(error.args[0], path, error.args[1])
            return Response(
                dumps(given), media_type="application/json", headers=dict(self.headers(given))
            )

        return endpoint
