"""ccxt clients of an exchange for a host, and the Source made of an exchange's facts."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from threading import Lock
from typing import Any
from urllib.parse import urlsplit

from extract.core.source import Form, FullRefreshCall, Job, Source
from extract.fetch.client import Client
from extract.fetch.http import CcxtClients
from extract.ledger import mapping
from extract.ledger.facts import Exchange
from extract.ledger.paging import at
from extract.ledger.walk import fetch


def source(exchange: Exchange, **more: Any) -> Source:
    """The Source of an exchange; `more` replaces what it has made."""
    endpoints = [call.endpoint for call in (*exchange.ledgers, *exchange.fills, *exchange.balances)]
    secrets = {"password": exchange.passphrase} if exchange.passphrase else {}
    made: dict[str, Any] = {
        "name": exchange.name,
        "documentation": exchange.documentation,
        "form": Form(
            title=exchange.title,
            host=exchange.host,
            login="API key",
            password=exchange.secret,
            secrets=secrets,
            hints={"login": f"allowed: {exchange.permission}"},
        ),
        "connect": partial(connect, exchange),
        "test_connection": partial(test_connection, exchange),
        "fetch": partial(fetch, exchange),
        "records": mapping.records(exchange),
        "mappings": mapping.mappings(exchange),
        "rates": exchange.rates,
        "whole": tuple(FullRefreshCall(endpoint) for endpoint in dict.fromkeys(endpoints)),
        "expected": partial(expected, exchange),
        "seeks": all(listing.since for listing in exchange.ledgers),
        "depth": exchange.depth,
        "reconcilable": exchange.reconcilable,
        "why": exchange.why,
    }
    return Source(**{**made, **more})


def connect(
    exchange: Exchange,
    *,
    host: str,
    login: str,
    password: str,
    extra: Mapping[str, Any] | None = None,
    **_: Any,
) -> CcxtClients:
    """ccxt clients of the exchange for the host; their own pacing is off, since Client paces.

    Raises Fatal for a host that no key should be sent to.
    """
    nonce = Nonce()

    def opened() -> Any:
        import ccxt

        made: Any = getattr(ccxt, exchange.ccxt)(
            {
                "apiKey": login.strip(),
                "secret": password.strip(),
                "password": str((extra or {}).get("password") or ""),
                "enableRateLimit": False,
                "options": dict(exchange.options),
            }
        )
        made.urls["api"] = hosted(made.urls["api"], host.rstrip("/"))
        exact = made.exceptions.setdefault("exact", {})
        exact.update(dict.fromkeys(exchange.key_errors, ccxt.AuthenticationError))
        exact.update(dict.fromkeys(exchange.passing_errors, ccxt.ExchangeNotAvailable))
        made.number = str  # amounts stay text, exactly as in the response
        if exchange.one_caller:
            made.nonce = nonce.next
        return made

    return CcxtClients(opened, host, extra)


class Nonce:
    """A number that rises with every call, of several threads and processes: microseconds."""

    def __init__(self) -> None:
        self._last, self._lock = 0, Lock()

    def next(self) -> int:
        with self._lock:
            self._last = max(self._last + 1, time.time_ns() // 1000)
            return self._last


def hosted(urls: Any, host: str) -> Any:
    """ccxt's addresses of an exchange with `host` (which may have a path) in the place of their own."""
    if isinstance(urls, dict):
        return {name: hosted(url, host) for name, url in urls.items()}
    return host + urlsplit(urls).path if isinstance(urls, str) else urls


def test_connection(exchange: Exchange, client: Client, api: CcxtClients) -> str:
    """The Test button: what the first list of balances shows, by one call."""
    call = exchange.probe or exchange.balances[0]
    answer = client.call(
        call.endpoint,
        lambda: api.call(
            call.call,
            {**call.params, **call.paging.first()},
            "",
            lambda data: _refused(exchange, data),
            rows=lambda data: at(data, call.rows),
        ),
    )
    count = answer.rows or 0
    return f"sees {count} {'balance' if count == 1 else 'balances'}"


def _refused(exchange: Exchange, data: Any) -> str | None:
    if exchange.ok and str(at(data, exchange.ok[0])) != exchange.ok[1]:
        return f"{exchange.ok[0]} is {at(data, exchange.ok[0])}"
    return None


def expected(exchange: Exchange, job: Job, rows: Callable[..., Any], now: Any) -> Mapping[str, int]:
    """The calls that a job will take: a call for each window of each list, and for each page."""
    counts: dict[str, int] = {}
    length = job.interval.end - job.read_from
    for listing in (*exchange.ledgers, *exchange.fills):
        windows = 1 if not listing.window else -(-length // listing.window)
        counts[listing.endpoint] = max(1, windows) * (len(listing.variants) or 1)
    return counts
