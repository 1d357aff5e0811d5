"""Why balances of the exchange and its rows differ: by kind, as the world itself knows it.

Like chain_truth: nothing here knows the product, nor sums what the product sums. Each row says
what it did to its wallet's balance and what the list of rows tells of it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

from sandbox.world.amounts import decimal_text
from sandbox.world.difference import Difference
from sandbox.world.exchange_history import ExchangeHistory
from sandbox.world.exchange_records import Currency, Entry
from sandbox.world.moments import iso

# The worst of a token's kinds is its status. What is not among them is off.
STATUSES = {
    "unread": "awaiting_coverage",
    "ahead": "settling",
    "late": "settling",
    "pending": "settling",
    "opening": "explained",
}
_ORDER = ("off", "awaiting_coverage", "settling", "explained", "exact")


def worst(statuses: Iterable[str]) -> str:
    """The status of a token whose differences have these; exact where there are none."""
    return min([*statuses, "exact"], key=_ORDER.index)


def updated(history: ExchangeHistory, name: str, now: int) -> int:
    """When a wallet changed last. In a messy world what appears late changes it when it appears,
    and what its balance has early changes it then, too."""
    marks = [history.wallets[name].since]
    for row in history.entries[name]:
        if row.is_there(now):
            marks += [row.updated(now), row.visible_at] if history.mess else [row.updated(now)]
        elif row.is_counted(now) and row.counted_at is not None:
            marks.append(row.counted_at)
    return max(marks)


def _differences(row: Entry, at: int, now: int, since: int) -> Iterator[tuple[str, int, int]]:
    """(kind, moment, units) of what a row's balance at `at` has beside what is stated at `now`."""
    shown = row.is_counted(at)
    stated = row.is_there(now) and row.is_settled(now)
    when = row.visible_at if row.counted_at is None else row.counted_at
    if row.created < since:
        if shown:
            yield "opening", when, row.units
    elif shown and not stated:
        yield "ahead" if row.visible_at > now else "late", when, row.units
    elif stated and not shown:
        late = not row.is_there(at) or row.settled_at is None
        yield "late" if late else "pending", max(when, row.settled_at or when), -row.units


def residuals(history: ExchangeHistory, at: int, now: int, since: int) -> list[dict]:
    """One dict per currency that a wallet lists or moves, as World.residuals documents them."""
    assets: dict[Currency, Difference] = defaultdict(Difference)
    for name, wallet in history.wallets.items():
        if not wallet.has_balance:  # the list says nothing of it
            continue
        asset = assets[wallet.currency]
        asset.reported += wallet.units
        if wallet.answer != 200:
            asset.differs("unread", wallet.since, wallet.units)
        for row in history.entries[name]:
            if row.created >= at:
                continue
            asset.reported += row.units * row.is_counted(at)
            if since <= row.created and row.is_there(now) and row.is_settled(now):
                asset.stated += row.units
                asset.turnover += abs(row.units)
            for kind, when, units in _differences(row, at, now, since):
                asset.differs(kind, when, units)
    return [_row(currency, asset) for currency, asset in assets.items()]


def _row(currency: Currency, asset: Difference) -> dict:
    parts = {kind: units for kind, units in asset.parts.items() if units}

    def text(units: int) -> str:
        return decimal_text(units, currency.exponent)

    return {
        "vendor": "coinbase",
        "account": "main",
        "chain": None,
        "token_id": currency.code,
        "token": currency.code,
        "listed": True,
        "is_verified": None,
        "reported": text(asset.reported),
        "sum": text(asset.stated),
        "residual": text(asset.reported - asset.stated),
        "turnover": text(asset.turnover),
        "kind": "+".join(sorted(parts)),
        "status": worst(STATUSES.get(kind, "off") for kind in parts),
        "parts": {kind: text(units) for kind, units in parts.items()},
        "steps": [
            [iso(when), text(units), kind]
            for when, kind, units in sorted(asset.steps)
            if kind in parts and kind != "opening"
        ],
    }


def unread(history: ExchangeHistory) -> list[dict]:
    """Wallets whose transactions answer with an error, always."""
    return [
        {
            "vendor": "coinbase",
            "account": "main",
            "wallet": wallet.id,
            "token": wallet.currency.code,
            "status": wallet.answer,
        }
        for wallet in history.wallets.values()
        if wallet.answer != 200
    ]
