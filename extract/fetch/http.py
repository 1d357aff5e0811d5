"""One HTTP request through requests or ccxt, and what its answer means.

Both give an Answer or raise an error of `extract.core.errors`; neither sleeps nor retries.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

from extract.core.errors import ExtractError, Fatal, RateLimited, Retriable
from extract.core.interval import UTC
from extract.fetch.client import TIMEOUT_S, Answer, asked_wait, failed, vendor_clock

SKEW_S = 60.0  # signed requests are good for two minutes by the vendor's clock


def http_call(session: Any, url: str, params: Mapping[str, Any], expect: Any) -> Answer:
    """GET `url`; `expect(data)` returns what is wrong with the parsed body, or None.

    Numbers are parsed as Decimal. Raises Retriable for network trouble, statuses that pass,
    and bodies that are not what was asked for; Fatal for the others.
    """
    import requests

    try:
        # A redirect is not followed: it would take the key along, wherever it leads.
        response = session.get(url, params=params, timeout=TIMEOUT_S, allow_redirects=False)
        body = response.content.decode("utf-8")
    except (requests.RequestException, UnicodeDecodeError) as error:
        raise Retriable(
            f"no answer: {type(error).__name__}: {error}", sent=not _unsent(error)
        ) from None
    if response.status_code >= 300:
        if to := response.headers.get("Location"):
            body = f"sent on to {to}; set the Connection's host to where it answers itself"
        raise failed(response.status_code, body, response.headers)
    try:
        data = json.loads(body, parse_float=Decimal)
        wrong = expect(data)
    except ValueError as error:
        wrong = f"not JSON ({error})"
    if wrong:
        raise _broken(response.status_code, wrong, body)
    return Answer(response.status_code, body, data, vendor_clock(response.headers))


def _unsent(error: Exception) -> bool:
    """Whether there was no connection that a request could have gone out by."""
    from requests import ConnectTimeout
    from urllib3.exceptions import ConnectTimeoutError, NewConnectionError

    reason = getattr(error.args[0] if error.args else None, "reason", None)
    return isinstance(error, ConnectTimeout) or isinstance(
        reason, (NewConnectionError, ConnectTimeoutError)
    )


class CcxtClients:
    """ccxt clients of one key, made by `opened()`: as many as threads call at one time.

    A ccxt client is one thread's: it keeps the answer that it has just got, and its session.
    """

    def __init__(self, opened: Callable[[], Any]):
        self._opened, self._idle = opened, [opened()]

    def call(
        self,
        method: str,
        params: Mapping[str, Any],
        key: str,
        expect: Callable[[Any], str | None] = lambda data: None,
    ) -> Answer:
        """The implicit endpoint method of that name, as ccxt_call."""
        try:
            exchange = self._idle.pop()  # list.pop is atomic
        except IndexError:
            exchange = self._opened()
        try:
            return ccxt_call(exchange, getattr(exchange, method), params, key, expect)
        finally:
            self._idle.append(exchange)


def ccxt_call(
    exchange: Any, method: Any, params: Mapping[str, Any], key: str, expect: Any = lambda data: None
) -> Answer:
    """One implicit ccxt endpoint method whose answer must be an object with a list at `key`;
    `expect(data)` returns what else is wrong with it, or None.

    ccxt's parsed answer cannot tell a broken body from an empty one (HTTP 200 with half a JSON
    comes back as no rows), so the text of the response is what counts.
    """
    import ccxt

    exchange.last_http_response = exchange.last_response_headers = None
    try:
        data = method(dict(params))
    except ccxt.BaseError as error:
        raise _from_ccxt(exchange, error) from None
    body = exchange.last_http_response or ""
    if wrong := listed(key)(data) or expect(data):
        raise _broken(200, wrong, body)
    clock = vendor_clock(exchange.last_response_headers or {})
    return Answer(200, body, data, clock, rows=len(data[key]))


def _from_ccxt(exchange: Any, error: Exception) -> ExtractError:
    """ccxt maps the vendor's code to a class but drops the HTTP status, and calls Coinbase's own
    500 a bare ExchangeError: the status, where there is one, decides before the class does."""
    import ccxt
    import requests

    text, headers = str(error), exchange.last_response_headers or {}
    cause = error.__cause__ or error.__context__
    response = cause.response if isinstance(cause, requests.HTTPError) else None
    status = response.status_code if response is not None else None
    message = text if status is None else f"HTTP {status}: {text}"
    if status == 429 or isinstance(error, (ccxt.RateLimitExceeded, ccxt.DDoSProtection)):
        return RateLimited(message, asked_wait(headers), status=status or 429)
    if isinstance(error, (ccxt.AuthenticationError, ccxt.PermissionDenied)):
        skew_s = (vendor_clock(headers) - datetime.now(UTC)).total_seconds()
        return Fatal(
            message,
            status=status or (403 if isinstance(error, ccxt.PermissionDenied) else 401),
            skew_s=skew_s if abs(skew_s) > SKEW_S else 0.0,
        )
    if (status or 0) >= 500 or "internal_server_error" in text:
        return Retriable(message, status=status or 500)
    if status is None and isinstance(cause, requests.RequestException):
        return Retriable(f"no answer: {type(cause).__name__}: {text}")
    if isinstance(error, (ccxt.OperationFailed, ccxt.BadResponse)):
        return Retriable(message, status=status)
    return Fatal(f"{type(error).__name__}: {message}", status=status)


def _broken(status: int, wrong: str, body: str) -> Retriable:
    return Retriable(
        f"HTTP {status} with a body that is not what was asked for: {wrong}; "
        f"it starts {body[:80]!r}",
        status=status,
    )


def listed(key: str):
    """An expectation for http_call: an object with a list at `key`."""

    def expect(data: Any) -> str | None:
        if isinstance(data, dict) and isinstance(data.get(key), list):
            return None
        return f"no list at {key!r}"

    return expect
