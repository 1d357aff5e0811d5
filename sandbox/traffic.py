"""What every call passes: injected faults, rate limits, the Date header and the counts."""

from __future__ import annotations

import re
import time
from collections import Counter, deque

from starlette.responses import Response

from sandbox.moments import Clock, http_date

_IDS = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}")

DEBANK_ERRORS = {
    401: '{"errors": ["Unauthorized"]}', 403: '{"errors": ["Insufficient units"]}',
    429: '{"errors": ["Too Many Requests"]}', 500: '{"errors": ["Internal Server Error"]}',
}
# https://docs.cdp.coinbase.com/coinbase-app/api-architecture/status-codes
COINBASE_ERRORS = {
    401: ("authentication_error", "invalid signature"), 403: ("invalid_scope", "Invalid scope"),
    404: ("not_found", "Not found"), 429: ("rate_limit_exceeded", "Too many requests"),
    500: ("internal_server_error", "Internal server error"), 400: ("invalid_request", "Invalid request"),
}
# v3 answers flat; the codes are those ccxt knows.
_V3_CODES = {401: "unauthorized", 403: "PERMISSION_DENIED", 400: "INVALID_ARGUMENT"}


def debank_error(status: int) -> Response:
    body = DEBANK_ERRORS.get(status, f'{{"errors": ["Error {status}"]}}')
    return Response(body, status, media_type="application/json")


def coinbase_error(status: int, path: str, message: str | None = None) -> Response:
    code, usual = COINBASE_ERRORS.get(status, ("internal_server_error", f"Error {status}"))
    text = (message or usual).replace('"', "'")
    if path.startswith("/api/v3"):
        code = _V3_CODES.get(status, code)
        body = f'{{"error": "{code}", "error_details": "{text}", "message": "{text}"}}'
    else:
        body = f'{{"errors": [{{"id": "{code}", "message": "{text}"}}]}}'
    return Response(body, status, media_type="application/json")


class SlidingSecond:
    """At most `limit` calls in any second."""

    def __init__(self, limit: int) -> None:
        self.limit, self._calls = limit, deque()

    def allows(self) -> bool:
        now = time.monotonic()
        while self._calls and self._calls[0] <= now - 1:
            self._calls.popleft()
        if len(self._calls) >= self.limit:
            return False
        self._calls.append(now)
        return True


class Bucket:
    """`limit` calls an hour, refilled evenly."""

    def __init__(self, limit: int) -> None:
        self.limit, self._left, self._at = limit, float(limit), time.monotonic()

    def allows(self) -> bool:
        now = time.monotonic()
        self._left = min(self.limit, self._left + (now - self._at) * self.limit / 3600)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class Traffic:
    """ASGI middleware around the application; holds faults and counts."""

    def __init__(self, app, clock: Clock) -> None:
        self.app, self.clock = app, clock
        self.faults: dict[str, dict] = {}
        self.calls: Counter = Counter()

    def fail(
        self, vendor: str, status: int | None, count: int | None = None, endpoint: str | None = None,
        body: str | None = None, retry_after: int | None = None,
    ) -> None:
        """The next `count` calls (None: all) whose path contains `endpoint` get `status`; None ends it.

        `body` replaces the vendor's own error body, so status 200 can carry nonsense;
        `retry_after` adds that header, which neither vendor documents.
        """
        if vendor not in ("coinbase", "debank"):
            raise ValueError(f"vendor is {vendor!r}; write coinbase or debank")
        self.faults.pop(vendor, None)
        if status is not None:
            self.faults[vendor] = {
                "status": int(status), "count": count, "endpoint": endpoint or "", "body": body,
                "retry_after": retry_after,
            }

    def stats(self) -> dict:
        tree: dict = {"coinbase": {}, "debank": {}}
        for (vendor, endpoint, status), count in sorted(self.calls.items()):
            tree[vendor].setdefault(endpoint, {})[str(status)] = count
        total = {vendor: sum(sum(by.values()) for by in tree[vendor].values()) for vendor in tree}
        return {"calls": tree, "total": total}

    def _injected(self, vendor: str, path: str) -> Response | None:
        fault = self.faults.get(vendor)
        if fault is None or fault["endpoint"] not in path or fault["count"] == 0:
            return None
        if fault["count"] is not None:
            fault["count"] -= 1
        status = fault["status"]
        if fault["body"] is not None:
            answer = Response(fault["body"], status, media_type="application/json")
        else:
            answer = debank_error(status) if vendor == "debank" else coinbase_error(status, path)
        if fault["retry_after"] is not None:
            answer.headers["Retry-After"] = str(fault["retry_after"])
        return answer

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        _, vendor, *rest = scope["path"].split("/", 2)
        path = "/" + (rest[0] if rest else "")
        known = vendor in ("coinbase", "debank")

        async def stamped(message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), (b"date", http_date(self.clock.now()).encode())]
                if known:
                    self.calls[vendor, _IDS.sub("{id}", path), message["status"]] += 1
            await send(message)

        failure = self._injected(vendor, path) if known else None
        await (failure or self.app)(scope, receive, stamped)
