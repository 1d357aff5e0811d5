"""Endpoints that no vendor has: the clock, faults, counts, and the truth.

POST /_control/clock        {"now": "2026-01-31T06:00:00Z"}
POST /_control/fail         {"vendor": "debank", "status": 500, "count": 2, "endpoint": "token_list"}
                            status null ends it, count null means until then;
                            "body" replaces the error body, "retry_after" adds the header
POST /_control/faults       {"profile": "chaos", "rate": 0.2, "vendor": null, "count": null, "after": 0}
                            profiles as sandbox/faults/faults.py lists them; "none" ends them; count:
                            so many faults; after: so many calls of the vendor pass before
POST /_control/vanish       {"vendor": "debank", "seed": 1, "since": null}: a row is gone from now on
POST /_control/units        {"balance": 100, "vendor": "debank"}: of one vendor, or of all that sell units
POST /_control/reset_stats
GET  /_stats                calls by vendor, endpoint and status; faults injected; units spent
GET  /_truth/NAME           ?now=          ledger, fills, transactions, transfers, unread,
                            unread_wallets, positions, and what else vendors have
GET  /_truth/VENDOR/NAME    ?now=          of one
GET  /_truth/balances       ?at=&now=      (as World documents them; now defaults to the clock)
GET  /_truth/residuals      ?at=&now=&since=
                            each also with &vendor=, once or several times: of these only
POST /_truth/differences    {"since": …, "snapshots": [oldest, …], "rows": [those of
                            curated.reconciliation], "spent": {"debank calls": 3, "debank units":
                            7, …}, "vendors": ["debank", …]}: where rows or counts (may be left
                            out) are not true, in sentences; of these vendors, else of all
"""

from __future__ import annotations

import json
from collections.abc import Callable
from random import Random

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from sandbox.faults.traffic import Traffic
from sandbox.vendor import Api
from sandbox.world.expected import differences, expectations
from sandbox.world.moments import Clock, iso
from sandbox.world.world import World


class Control:
    """`traffic` is set by create_app once the middleware exists."""

    traffic: Traffic

    def __init__(self, world: World, clock: Clock, apis: dict[str, Api]) -> None:
        self.world, self.clock, self.apis = world, clock, apis

    def routes(self) -> list[Route]:
        questions = []
        for name in sorted({n for h in self.world.histories.values() for n in h.truths()}):
            questions.append((f"/_truth/{name}", self._truth(name)))
        for vendor, history in self.world.histories.items():
            for name in history.truths():
                questions.append((f"/_truth/{vendor}/{name}", self._truth(name, vendor)))
        questions += [
            ("/_truth/balances", self.balances),
            ("/_truth/residuals", self.residuals),
            ("/_stats", self.stats),
            ("/_health", self.health),
        ]
        changes = [
            ("/_control/clock", self.set_clock),
            ("/_control/fail", self.fail),
            ("/_control/units", self.set_units),
            ("/_control/reset_stats", self.reset_stats),
            ("/_control/faults", self.set_faults),
            ("/_control/vanish", self.vanish),
            ("/_truth/differences", self.differences),
        ]
        return [
            *(Route(path, _plain(answer), methods=["GET"]) for path, answer in questions),
            *(Route(path, _plain(answer), methods=["POST"]) for path, answer in changes),
        ]

    def _truth(self, name: str, vendor: str | None = None):
        def answer(query, _body) -> list[dict]:
            now = query.get("now") or self.clock.now()
            return self.world.truth(name, now, [vendor] if vendor else query.getlist("vendor"))

        return answer

    def balances(self, query, _body) -> list[dict]:
        now = query.get("now") or self.clock.now()
        return self.world.balances(query.get("at"), now, query.getlist("vendor"))

    def residuals(self, query, _body) -> list[dict]:
        now, vendors = query.get("now") or self.clock.now(), query.getlist("vendor")
        return self.world.residuals(query.get("at"), now, query.get("since"), vendors)

    def differences(self, _query, body: dict) -> list[str]:
        vendors = body.get("vendors")
        expected = expectations(self.world, body["since"], body["snapshots"], vendors)
        stats = self.stats(None, None)
        counted = {f"{vendor} calls": total for vendor, total in stats["total"].items()}
        counted |= {f"{vendor} units": spent for vendor, spent in stats["units"].items()}
        spent = body.get("spent", counted)
        return differences(body["rows"], expected, body["snapshots"][-1]) + [
            f"{spent.get(what, 0)} {what} are logged, the sandbox counted {count}"
            for what, count in counted.items()
            if spent.get(what, 0) != count
        ]

    def stats(self, _query, _body) -> dict:
        selling = self._selling()
        units = {
            "units": {name: api.units_spent for name, api in selling.items()},
            "units_spent": sum(api.units_spent for api in selling.values()),
            "units_balance": sum(api.balance or 0 for api in selling.values()),
        }
        return self.traffic.stats() | units | {"now": iso(self.clock.now())}

    def _selling(self) -> dict[str, Api]:
        return {name: api for name, api in self.apis.items() if api.balance is not None}

    def health(self, _query, _body) -> dict:
        health = self.world.summary(self.clock.now())
        for api in self.apis.values():
            health |= api.facts()
        return health | {"now": iso(self.clock.now())}

    def set_clock(self, _query, body: dict) -> dict:
        self.clock.set(body["now"])
        return {"now": iso(self.clock.now())}

    def fail(self, _query, body: dict) -> dict:
        self.traffic.fail(**{"status": None} | body)
        return self.traffic.failures

    def set_faults(self, _query, body: dict) -> list[dict]:
        self.traffic.faults.set(**body)
        return self.traffic.faults.listed()

    def vanish(self, _query, body: dict) -> dict | None:
        rng = Random(f"ledgerhouse/vanish/{body.get('seed', 0)}")
        return self.world.vanish(self.clock.now(), body["vendor"], rng, body.get("since"))

    def set_units(self, _query, body: dict) -> dict:
        balance, selling = int(body["balance"]), self._selling()
        for api in [selling[body["vendor"]]] if "vendor" in body else selling.values():
            api.balance = balance
        return {"balance": balance}

    def reset_stats(self, _query, _body) -> dict:
        self.traffic.reset()
        for api in self.apis.values():
            api.units_spent = 0
        return self.stats(None, None)


def _plain(answer: Callable):
    async def endpoint(request: Request) -> Response:
        try:
            text = await request.body()
            body, status = answer(request.query_params, json.loads(text) if text else {}), 200
        except (KeyError, TypeError, ValueError) as error:
            body, status = {"error": f"{type(error).__name__}: {error}"}, 400
        return Response(json.dumps(body), status, media_type="application/json")

    return endpoint
