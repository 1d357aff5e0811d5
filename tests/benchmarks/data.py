"""Landing files as a fetch writes them, with made-up records: the same for the same seed.

Ledger records have the fields and the mix of types of Coinbase v2 transactions (700 bytes of JSON),
transactions those of DeBank. Times fall evenly over a span, so a day holds as many as another.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path

from extract.core.interval import Interval, iso
from extract.core.source import Covered, Fetched, Job, Page
from extract.fetch import landing
from extract.sources.coinbase import TRANSACTIONS
from extract.sources.debank import HISTORY

V2_PAGE, DEBANK_PAGE = 100, 20
TYPES = (*["advanced_trade_fill"] * 5, *["staking_reward"] * 2, *["send"] * 2, "fiat_deposit")
ASSETS = ("BTC", "ETH", "SOL", "ADA", "DOT", "AVAX", "LINK", "UNI", "AAVE", "USDC", "USD", "EUR")
TOKENS = (("eth", 18), ("usdc", 6), ("weth", 18), ("wbtc", 8), ("dai", 18), ("link", 18))


def uuid(rng: random.Random) -> str:
    text = f"{rng.getrandbits(128):032x}"
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


def amount(rng: random.Random) -> str:
    return f"{rng.randrange(1000)}.{rng.randrange(10**8):08d}"


def entry(rng: random.Random, wallet: str, when: datetime, money: str | None = None) -> str:
    """JSON text of one v2 transaction, of a random amount unless `money` says it."""
    kind, asset, identity = rng.choice(TYPES), rng.choice(ASSETS), uuid(rng)
    at, path = iso(when), f"/v2/accounts/{wallet}"
    record = {
        "amount": {"amount": money or amount(rng), "currency": asset},
        "created_at": at,
        "description": None,
        "details": {"title": kind.replace("_", " "), "subtitle": asset},
        "id": identity,
        "native_amount": {"amount": f"{rng.random() * 1e4:.2f}", "currency": "USD"},
        "resource": "transaction",
        "resource_path": f"{path}/transactions/{identity}",
        "status": "completed",
        "type": kind,
        "updated_at": at,
    }
    if kind == "advanced_trade_fill":
        record["advanced_trade_fill"] = {
            "fill_price": f"{rng.random() * 5e4:.2f}",
            "product_id": f"{asset}-USD",
            "order_id": uuid(rng),
            "commission": f"{rng.random():.12f}",
            "order_side": "buy",
        }
    if kind == "send":
        record["network"] = {
            "hash": f"{rng.getrandbits(256):064x}",
            "network_name": asset.lower(),
            "status": "confirmed",
            "transaction_fee": {"amount": "0.00001", "currency": asset},
        }
        record["to"] = {"address": f"0x{rng.getrandbits(160):040x}", "resource": "address"}
    return json.dumps(record)


def transaction(rng: random.Random, wallet: str, when: datetime, legs: int) -> str:
    """JSON text of one DeBank history item with `legs` legs (the first one out)."""

    def leg(other: str) -> dict:
        return {
            "amount": rng.random() * 1e3,
            other: f"0x{rng.getrandbits(160):040x}",
            "token_id": rng.choice(TOKENS)[0],
            "price": 1.5,
        }

    return json.dumps(
        {
            "cate_id": "send" if legs == 1 else None,
            "cex_id": None,
            "chain": "eth",
            "id": f"0x{rng.getrandbits(256):064x}",
            "idx": 3,
            "is_scam": False,
            "other_addr": f"0x{rng.getrandbits(160):040x}",
            "project_id": "eth_uniswap3",
            "sends": [leg("to_addr")],
            "receives": [leg("from_addr") for _ in range(legs - 1)],
            "time_at": int(when.timestamp()),
            "token_approve": None,
            "tx": {
                "eth_gas_fee": rng.random() / 100,
                "from_addr": wallet,
                "name": "swap",
                "params": [],
                "selector": "0x38ed1739",
                "status": 1,
                "to_addr": f"0x{rng.getrandbits(160):040x}",
                "usd_gas_fee": 1.2,
                "value": 0,
            },
        }
    )


def token_dict() -> str:
    return json.dumps(
        {
            name: {
                "id": name,
                "chain": "eth",
                "name": name,
                "symbol": name.upper(),
                "decimals": decimals,
                "optimized_symbol": name.upper(),
                "is_verified": True,
                "price": 1.5,
                "logo_url": f"https://static.example.org/{name}.png",
            }
            for name, decimals in TOKENS
        }
    )


def moments(start: datetime, end: datetime, count: int) -> list[datetime]:
    """`count` whole seconds spread evenly over [start, end), newest first."""
    step = (end - start) / count
    return [(start + n * step).replace(microsecond=0) for n in reversed(range(count))]


def coinbase(
    root: Path,
    times: Sequence[datetime],
    *,
    account="main",
    seed=7,
    received: datetime | None = None,
    money: str | None = None,
) -> Path:
    """Land one fetch whose pages hold a ledger record at each of `times` (newest first).

    It covers from the oldest to the newest of them, and was `received` five minutes later unless
    said otherwise: where an earlier reading covers that time, it must be older.
    """
    rng, wallet = random.Random(seed), "7c1d9a2e-1111-4222-8333-944445555666"
    return _land(
        root,
        "coinbase",
        account,
        times,
        TRANSACTIONS,
        {"account_id": wallet, "limit": V2_PAGE, "order": "desc"},
        (
            f'{{"pagination": {{}}, "data": [{rows}]}}'
            for rows in (
                ", ".join(entry(rng, wallet, when, money) for when in page)
                for page in _pages(times, V2_PAGE)
            )
        ),
        ("exchanges_ledger", "exchanges_trades"),
        received,
    )


def debank(root: Path, times: Sequence[datetime], *, account="0x" + "ab" * 20, seed=7) -> Path:
    """Land one fetch with a transaction at each of `times`, of one leg and two legs in turn."""
    rng, tokens = random.Random(seed), token_dict()
    return _land(
        root,
        "debank",
        account,
        times,
        HISTORY,
        {"id": account, "page_count": 20},
        (
            f'{{"cate_dict": {{}}, "token_dict": {tokens}, "history_list": [{rows}]}}'
            for rows in (
                ", ".join(transaction(rng, account, when, 1 + n % 2) for n, when in enumerate(page))
                for page in _pages(times, DEBANK_PAGE)
            )
        ),
        ("onchain_transactions", "onchain_transfers"),
    )


def _pages(times: Sequence[datetime], size: int) -> Iterator[Sequence[datetime]]:
    return (times[n : n + size] for n in range(0, len(times), size))


def _land(root, source, account, times, endpoint, params, bodies, datasets, received=None) -> Path:
    # No longer: what the history has in the rest of that second would count as vanished.
    span = Interval(min(times), max(times) + timedelta(microseconds=1))
    received = received or span.end + timedelta(minutes=5)
    return landing.write(
        root,
        Job(source, account, source, span, span.start),
        Fetched(
            [Page(endpoint, params, body, received) for body in bodies],
            [Covered(name, span, "last page") for name in datasets],
        ),
        {"dag_id": "bench", "run_id": "bench"},
    )
