"""Clients of the sandbox, and walks through its pages."""

from __future__ import annotations

import json
from decimal import Context, Decimal
from pathlib import Path

import ccxt
import requests

from sandbox.coinbase.keys import KEY_NAME, KEY_PEM
from sandbox.debank.keys import DEBANK_KEY

ROOT = Path(__file__).parents[3]
NOW = "2025-04-01T00:00:00Z"
SMALL = 0.05
WIDE = Context(prec=80)  # the default context would round the huge ones


def exchange(url: str, name: str = KEY_NAME, pem: str = KEY_PEM) -> ccxt.coinbase:
    client = ccxt.coinbase({"apiKey": name, "secret": pem, "enableRateLimit": False})
    client.urls["api"] = {"rest": url}
    client.number = str
    return client


def debank(base: str, endpoint: str, key: str = DEBANK_KEY, **params) -> requests.Response:
    return requests.get(
        f"{base}/debank/v1/{endpoint}", params=params, headers={"AccessKey": key}, timeout=10
    )


def exactly(answer: requests.Response):
    assert answer.status_code == 200, answer.text
    return json.loads(answer.text, parse_float=Decimal)


def v2_rows(client: ccxt.coinbase, wallet: str, **params) -> list[dict]:
    rows, after = [], None
    while True:
        more = {"starting_after": after} if after else {}
        page = client.v2PrivateGetAccountsAccountIdTransactions(
            {"account_id": wallet, **params, **more}
        )
        rows += page["data"]
        after = page["pagination"]["next_starting_after"]
        if after is None:
            return rows
