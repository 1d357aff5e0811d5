"""Middleware of every call: faults, the Date header and the counts."""

from __future__ import annotations

import asyncio
import re
from collections import Counter

from starlette.responses import Response

from sandbox.faults import hostile
from sandbox.faults.faults import HOSTILE, Fault, Faults, instead, skew
from sandbox.faults.spoil import SPOILED
from sandbox.vendor import Api
from sandbox.world.moments import Clock, http_date
from sandbox.world.world import World

_IDS = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}")


class Traffic:
    """ASGI middleware around the application; holds faults and counts.

    `failures` are those of `fail`, for so many calls; `faults` are drawn by profile and seed; `apis`
    are the vendors' own, by name.
    """

    def __init__(
        self, app, world: World, clock: Clock, faults: Faults, apis: dict[str, Api]
    ) -> None:
        self.app, self.world, self.clock, self.faults = app, world, clock, faults
        self.vendors, self.apis = world.vendors, apis
        self.failures: dict[str, dict] = {}
        self.calls: Counter = Counter()

    def fail(
        self,
        vendor: str,
        status: int | None,
        count: int | None = None,
        endpoint: str | None = None,
        body: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        """The next `count` calls (None: all) whose path contains `endpoint` get `status`; None ends it.

        `body` replaces the vendor's own error body, so status 200 can carry nonsense;
        `retry_after` adds that header, which not every vendor documents.
        """
        if vendor not in self.vendors:
            raise ValueError(f"vendor is {vendor!r}; write {' or '.join(self.vendors)}")
        self.failures.pop(vendor, None)
        if status is not None:
            self.failures[vendor] = {
                "status": int(status),
                "count": count,
                "endpoint": endpoint or "",
                "body": body,
                "retry_after": retry_after,
            }

    def lift_limits(self) -> None:
        """No vendor has rate limits from now on."""
        for api in self.apis.values():
            api.lift_limits()

    def stats(self) -> dict:
        tree: dict = {vendor: {} for vendor in self.vendors}
        for (vendor, endpoint, status), count in sorted(self.calls.items()):
            tree[vendor].setdefault(endpoint, {})[str(status)] = count
        total = {vendor: sum(sum(by.values()) for by in tree[vendor].values()) for vendor in tree}
        return {"calls": tree, "total": total, "faults": self.faults.stats()}

    def reset(self) -> None:
        self.calls.clear()
        self.faults.injected.clear()

    def _injected(self, vendor: str, path: str) -> Response | None:
        fault = self.failures.get(vendor)
        if fault is None or fault["endpoint"] not in path or fault["count"] == 0:
            return None
        if fault["count"] is not None:
            fault["count"] -= 1
        status = fault["status"]
        if fault["body"] is not None:
            answer = Response(fault["body"], status, media_type="application/json")
        else:
            answer = self.vendors[vendor].error(status, path)
        if fault["retry_after"] is not None:
            answer.headers["Retry-After"] = str(fault["retry_after"])
        return answer

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        _, vendor, *rest = scope["path"].split("/", 2)
        path, off = "/" + (rest[0] if rest else ""), [0]
        known = vendor in self.vendors

        async def stamped(message) -> None:
            if message["type"] == "http.response.start":
                date = http_date(self.clock.now() + off[0]).encode()
                message["headers"] = [*message.get("headers", ()), (b"date", date)]
                if known:
                    self.calls[vendor, _IDS.sub("{id}", path), message["status"]] += 1
            await send(message)

        if not known:
            return await self.app(scope, receive, stamped)
        if failure := self._injected(vendor, path):
            return await failure(scope, receive, stamped)
        call = f"{path}?{scope['query_string'].decode()}"
        injected = []
        for fault in self.faults.draw(vendor, call):
            if fault.kind in ("clock_skew", "future_date"):
                off[0] = skew(fault, self.clock.now())
            elif fault.kind == "changing_rows":
                self.clock.set(self.clock.now() + fault.rng.randrange(1, 1800))
            elif fault.kind == "vanishing":
                if not self.world.vanish(self.clock.now(), vendor, fault.rng):
                    continue
            else:
                if await self._suffer(fault, vendor, call, scope, receive, stamped):
                    injected.append(fault)
                break
            injected.append(fault)
        else:
            self.faults.done(vendor, call, injected)
            return await self.app(scope, receive, stamped)
        self.faults.done(vendor, call, injected)

    async def _suffer(self, fault: Fault, vendor: str, call: str, scope, receive, send) -> bool:
        """Answers the call in the way of the fault; False where it did not apply and all went well.

        The work is done, and paid for, before an answer is held back, cut or spoiled.
        """
        if answer := instead(fault, self.vendors[vendor], call, self.clock.now()):
            await answer(scope, receive, send)
            return True
        messages = []

        async def collect(message) -> None:
            messages.append(message)

        await self.app(scope, receive, collect)
        start, body = messages[0], b"".join(message.get("body", b"") for message in messages[1:])
        if fault.kind == "timeouts":
            if await _gone(receive, self.faults.hold):
                path = call.partition("?")[0]
                self.calls[vendor, _IDS.sub("{id}", path), 499] += (
                    1  # the client closed the request
                )
                return True
        elif fault.kind == "cut":
            # The length promised is the whole one. A response that never completes makes the
            # server drop the connection, which is the point.
            await send(start)
            await send(
                {"type": "http.response.body", "body": body[: len(body) // 2], "more_body": True}
            )
            return True
        elif fault.kind in HOSTILE:
            pause = self.faults.pause
            await hostile.answer(fault.kind, pause, start, body, scope, receive, send)
            return True
        elif fault.kind in SPOILED and start["status"] == 200:
            if (
                spoiled := SPOILED[fault.kind](fault.rng, self.vendors[vendor].pages, call, body)
            ) is not None:
                media = "application/json"
                await Response(spoiled, 200, media_type=media)(scope, receive, send)
                return True
        await send(start)
        await send({"type": "http.response.body", "body": body})
        return fault.kind == "timeouts"


async def _gone(receive, seconds: float) -> bool:
    """Whether the client hangs up within so many seconds."""

    async def hung_up() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    try:
        await asyncio.wait_for(hung_up(), seconds)
    except TimeoutError:
        return False
    return True
