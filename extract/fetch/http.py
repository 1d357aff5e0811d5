"""One HTTP request through requests or ccxt, and what its answer means.

Both give an Answer or raise an error of `extract.core.errors`; neither sleeps nor retries.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sized
from decimal import Decimal
from typing import Any

from extract.core.errors import ExtractError, Fatal, NotJson, RateLimited, Retriable
from extract.fetch.answer_head import asked_wait, failed, skew, vendor_clock
from extract.fetch.client import Answer

SKEW_S = 60.0  # signed requests are good for two minutes by the vendor's clock


def http_call(session: Any, url: str, params: Mapping[str, Any], expect: Any) -> Answer:
    """GET `url` by a session of `extract.fetch.session` (any other is guarded like one);
    `expect(data)` returns what is wrong with the parsed body, or None.

    Numbers are parsed as Decimal. Raises Retriable for network trouble, statuses that pass,
    and bodies that are not what was asked for; Fatal for the others.
    """
    from extract.fetch.session import guard

    guard(session)
    response = session.get(url, params=params)
    status, headers = response.status_code, response.headers
    try:
        body = response.content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Retriable(f"no answer: {type(error).__name__}: {error}") from None
    if status >= 300:
        raise failed(status, body, headers)
    try:
        data = json.loads(body, parse_float=Decimal, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise _broken(status, f"not JSON ({error})", body, NotJson) from None
    if wrong := _wrong(expect, data):
        raise _broken(status, wrong, body)
    return Answer(status, body, data, vendor_clock(headers), skew_s=skew(headers))


def _no_number(name: str) -> Any:
    """Refuse NaN and Infinity, which Python's parser takes and JSON does not have."""
    raise ValueError(f"{name} is no number of JSON")


def _wrong(expect: Any, data: Any) -> str | None:
    """What is wrong with an answer. One that `expect` itself fails on is not what was asked for."""
    try:
        return expect(data)
    except ExtractError:
        raise
    except Exception as error:
        return f"its shape is not known ({type(error).__name__}: {error})"


class CcxtClients:
    """ccxt clients of one key, made by `opened()`: as many as threads call at one time.

    A ccxt client is one thread's: it keeps the answer that it has just got, and its session. That
    session is ours: it asks `host` alone (empty: whatever ccxt asks), within the limits of `extra`.
    """

    def __init__(
        self, opened: Callable[[], Any], host: str = "", extra: Mapping[str, Any] | None = None
    ):
        self._opened, self._host, self._extra = opened, host, extra
        self._idle = [self._open()]

    def _open(self) -> Any:
        from extract.fetch.session import guard, open_session

        exchange = self._opened()
        if self._host:
            exchange.session = open_session(self._host, self._extra)
        else:
            guard(getattr(exchange, "session", None))
        exchange.on_json_response = _strict_json
        return exchange

    def call(
        self,
        method: str,
        params: Mapping[str, Any],
        key: str,
        expect: Callable[[Any], str | None] = lambda data: None,
        rows: Callable[[Any], Sized] | None = None,
    ) -> Answer:
        """The implicit endpoint method of that name, as ccxt_call."""
        try:
            exchange = self._idle.pop()  # list.pop is atomic
        except IndexError:
            exchange = self._open()
        try:
            return ccxt_call(exchange, getattr(exchange, method), params, key, expect, rows)
        finally:
            self._idle.append(exchange)


def _strict_json(text: str) -> Any:
    """What ccxt reads of a body; ValueError, which it takes for "no JSON", for all that is none."""
    try:
        return json.loads(text, parse_constant=_no_number)
    except RecursionError as error:
        raise ValueError(str(error)) from None


def ccxt_call(
    exchange: Any,
    method: Any,
    params: Mapping[str, Any],
    key: str,
    expect: Any = lambda data: None,
    rows: Callable[[Any], Sized] | None = None,
) -> Answer:
    """One implicit ccxt endpoint method whose answer must be an object with a list at `key`;
    `expect(data)` returns what else is wrong with it, or None. Without a `key`, `expect` says all
    that it must be, and `rows(data)` what its records are.

    ccxt's parsed answer cannot tell a broken body from an empty one (HTTP 200 with half a JSON
    comes back as no rows), so the text of the response is what counts.
    """
    import ccxt

    exchange.last_http_response = exchange.last_response_headers = None
    try:
        data = method(dict(params))
    except ExtractError:
        raise
    except ccxt.BaseError as error:
        raise _from_ccxt(exchange, error) from None
    except Exception as error:
        if exchange.last_http_response is None:
            raise  # not for what was answered
        wrong = f"ccxt cannot read it ({type(error).__name__}: {error})"
        raise _broken(200, wrong, exchange.last_http_response) from None
    body, headers = exchange.last_http_response or "", exchange.last_response_headers or {}
    if wrong := _not_json(data, body):
        raise _broken(200, wrong, body, NotJson)
    lists = listed(key) if key else lambda data: None
    if wrong := lists(data) or _wrong(expect, data):
        raise _broken(200, wrong, body)
    return Answer(
        200,
        body,
        data,
        vendor_clock(headers),
        rows=len((rows(data) if rows else data[key]) or ()),
        skew_s=skew(headers),
        headers=dict(headers),
    )


def _not_json(data: Any, body: str) -> str | None:
    """Why ccxt gave a text back instead of what it says; None where it did not."""
    if not isinstance(data, str):
        return None
    try:
        _strict_json(body)
    except ValueError as error:
        return f"not JSON ({error})"
    return None


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
    limited = isinstance(error, (ccxt.RateLimitExceeded, ccxt.DDoSProtection))
    # ccxt takes Binance's refusal of a key that has worked before for a ban that passes.
    if status == 429 or (limited and status != 401):
        return RateLimited(message, asked_wait(headers), status=status or 429)
    if status == 401 or isinstance(error, (ccxt.AuthenticationError, ccxt.PermissionDenied)):
        skew_s = skew(headers)
        # Some refuse a key with another status than these: 200, 400 or 500 with the words inside.
        refused = 403 if isinstance(error, ccxt.PermissionDenied) else 401
        return Fatal(
            message,
            status=status if status in (401, 403) else refused,
            skew_s=skew_s if abs(skew_s) > SKEW_S else 0.0,
        )
    if (status or 0) >= 500 or "internal_server_error" in text:
        return Retriable(message, status=status or 500)
    if isinstance(error, (ccxt.OperationFailed, ccxt.BadResponse)):
        return Retriable(message, status=status)
    return Fatal(f"{type(error).__name__}: {message}", status=status)


def _broken(status: int, wrong: str, body: str, kind: type[Retriable] = Retriable) -> Retriable:
    return kind(
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
