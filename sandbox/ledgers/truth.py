"""Why balances of a ledger exchange and its rows differ: by kind, as the world itself knows it."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from sandbox.world.amounts import decimal_text
from sandbox.world.difference import Difference
from sandbox.world.exchange_truth import STATUSES, worst

if TYPE_CHECKING:
    from sandbox.ledgers.history import Coin, LedgerHistory


def residuals(history: LedgerHistory, at: int, now: int, since: int) -> list[dict]:
    """One dict per coin that a wallet has ever held, as World.residuals documents them."""
    assets: dict[Coin, Difference] = defaultdict(Difference)
    for row in history.rows:
        second = row.time // 10**6
        shown = second < at and row.is_there(at) and history.is_settled(row, at)
        stated = since <= second < at and row.is_there(now) and history.is_settled(row, now)
        if not shown and not stated:
            continue
        asset = assets[row.coin]
        asset.reported += row.change * shown
        asset.stated += row.change * stated
        asset.turnover += abs(row.change) * stated
        if shown and second < since:
            asset.differs("opening", row.visible_at, row.change)
        elif stated and not shown:
            asset.differs("late", row.visible_at, -row.change)
        elif shown and not stated:
            asset.differs("ahead", row.visible_at, row.change)
    return [_row(history, coin, asset) for coin, asset in assets.items()]


def _row(history: LedgerHistory, coin: Coin, asset: Difference) -> dict:
    parts = {kind: units for kind, units in asset.parts.items() if units}

    def text(units: int) -> str:
        return decimal_text(units, coin.decimals)

    return {
        "vendor": history.shape.vendor,
        "account": history.shape.account,
        "chain": None,
        "token_id": coin.code,
        "token": coin.code,
        "listed": True,
        "is_verified": None,
        "reported": text(asset.reported),
        "sum": text(asset.stated),
        "residual": text(asset.reported - asset.stated),
        "turnover": text(asset.turnover),
        "kind": "+".join(sorted(parts)),
        "status": worst(STATUSES.get(kind, "off") for kind in parts),
        "parts": {kind: text(units) for kind, units in parts.items()},
        "steps": [],
    }
