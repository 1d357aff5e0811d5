"""The account "main" as its API shows it, and the truth about it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from sandbox.vendor import History, Plan
from sandbox.world import exchange_truth
from sandbox.world.amounts import decimal_text
from sandbox.world.exchange_fills import Fill
from sandbox.world.exchange_history import ExchangeHistory
from sandbox.world.exchange_mess import LISTED
from sandbox.world.exchange_records import Currency, Entry


class CoinbaseHistory(ExchangeHistory, History):
    """`wallets`: so many beside the ten that move (None: 50 in a messy world, else none)."""

    def __init__(self, plan: Plan, wallets: int | None = None) -> None:
        more = LISTED * plan.mess if wallets is None else wallets
        super().__init__(plan.seed, plan.start, plan.scale, plan.mess, more)

    # What the API serves from.

    def rows(self, wallet: str, now: int) -> list[Entry]:
        """Visible ledger rows of one wallet (by name), by (created, id), oldest first."""
        return [row for row in self.entries[wallet] if row.is_there(now)]

    def all_rows(self, now: int) -> list[Entry]:
        return [row for name in self.wallets for row in self.rows(name, now)]

    def visible_fills(self, now: int) -> list[Fill]:
        return [fill for fill in self.fills if fill.visible_at <= now]

    def wallet_units(self, wallet: str, now: int) -> int:
        """Base units in one wallet, as its balance says."""
        rows, base = self.entries[wallet], self.wallets[wallet].units
        return base + sum(row.units for row in rows if row.is_counted(now))

    def wallet_updated(self, wallet: str, now: int) -> int:
        """When a wallet changed last: its balance, its rows or what they say."""
        return exchange_truth.updated(self, wallet, now)

    # The truth.

    def truths(self) -> Mapping[str, Callable[[int], list[dict]]]:
        return {
            "ledger": self._ledger,
            "fills": lambda now: [fill.truth() for fill in self.visible_fills(now)],
            "unread_wallets": lambda now: exchange_truth.unread(self),
        }

    def _ledger(self, now: int) -> list[dict]:
        rows = sorted(self.all_rows(now), key=lambda row: (row.created, row.id))
        return [row.truth(now) for row in rows]

    def balances(self, before: int, now: int) -> list[dict]:
        coins: dict[Currency, int] = {}
        for name, one in self.wallets.items():
            rows = [row for row in self.rows(name, now) if row.created < before]
            if rows:
                coins[one.currency] = coins.get(one.currency, 0) + sum(
                    row.units for row in rows if row.is_settled(now)
                )
        return [
            {
                "vendor": "coinbase",
                "account": "main",
                "token": currency.code,
                "amount": decimal_text(units, currency.exponent),
            }
            for currency, units in coins.items()
        ]

    def residuals(self, at: int, now: int, since: int) -> list[dict]:
        return exchange_truth.residuals(self, at, now, since)

    def listed(self, now: int, since: int) -> list[Entry]:
        return [row for row in self.all_rows(now) if row.created >= since]

    def summary(self, now: int) -> dict[str, int]:
        return {
            "wallets": len(self.wallets),
            "ledger": len(self.all_rows(now)),
            "fills": len(self.visible_fills(now)),
        }
