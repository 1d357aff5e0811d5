"""The wallets on their chains as the API shows them, and the truth about them."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import lru_cache
from random import Random

from sandbox.vendor import EVERYTHING, History, Plan
from sandbox.world import chain_truth
from sandbox.world.amounts import decimal_text
from sandbox.world.chain_history import ChainHistory
from sandbox.world.chain_mess import Deposit
from sandbox.world.chain_records import Tx
from sandbox.world.mess_tokens import ALL_TOKENS
from sandbox.world.tokens import WALLETS as ADDRESSES
from sandbox.world.tokens import Token


class DebankHistory(ChainHistory, History):
    def __init__(self, plan: Plan) -> None:
        super().__init__(plan.seed, plan.start, plan.scale, plan.late_days, plan.mess)
        self._reported = lru_cache(maxsize=64)(self._sum_reported)

    # What the API serves from.

    def txs(self, wallet: str, now: int, chain: str | None = None) -> list[Tx]:
        """Visible transactions of one wallet by (time, id), oldest first; [] for a stranger."""
        rows = (
            self.wallets.get(wallet, []) if chain is None else self.chains.get((wallet, chain), [])
        )
        return [tx for tx in rows if tx.is_there(now)]

    def newest(
        self,
        wallet: str,
        now: int,
        count: int,
        *,
        chain: str | None = None,
        bound: float | None = None,
        inclusive: bool = False,
        wanted: Callable[[Tx], bool] = lambda tx: True,
    ) -> list[Tx]:
        """The `count` newest visible and wanted transactions before (or at, if inclusive) `bound`."""
        rows = (
            self.wallets.get(wallet, []) if chain is None else self.chains.get((wallet, chain), [])
        )
        if bound is None:
            end = len(rows)
        else:
            end = (bisect_right if inclusive else bisect_left)(rows, bound, key=lambda tx: tx.time)
        page: list[Tx] = []
        while end and len(page) < count:
            end -= 1
            if rows[end].is_there(now) and wanted(rows[end]):
                page.append(rows[end])
        return page

    def reported_units(self, address: str, now: int) -> dict[Token, int]:
        """Base units of every token as the vendor's list shows them, scams included."""
        return self._reported(address, now, self.days)

    def _sum_reported(self, address: str, now: int, _days: int) -> dict[Token, int]:
        return chain_truth.reported_units(self, address, self.txs(address, now), now)

    def deposited(self, address: str, now: int) -> list[Deposit]:
        """What an address has put into pools of protocols."""
        return [one for one in self.deposits.get(address, []) if one.tx.is_there(now)]

    # The truth.

    def truths(self) -> Mapping[str, Callable[[int], list[dict]]]:
        return {
            "transactions": self._transactions,
            "transfers": lambda now: [
                leg for tx in self.listed(now) for leg in tx.truth_transfers(now)
            ],
            "unread": lambda now: [
                one
                for wallet in ADDRESSES
                for one in chain_truth.unread(wallet, self.txs(wallet, now))
            ],
            "positions": self._positions,
        }

    def _transactions(self, now: int) -> list[dict]:
        truth = {}
        for tx in self.listed(now):
            row = tx.truth(now)
            first = truth.setdefault((tx.wallet, tx.chain, tx.id), row)
            if first is not row:  # another row of the same hash
                first["legs"] += row["legs"]
        return list(truth.values())

    def _positions(self, now: int) -> list[dict]:
        return [
            {
                "account": wallet,
                "chain": one.token.chain,
                "project": one.project,
                "pool": one.pool,
                "token": one.token.key,
                "amount": decimal_text(one.units, one.token.decimals),
            }
            for wallet in ADDRESSES
            for one in self.deposited(wallet, now)
        ]

    def balances(self, before: int, now: int) -> list[dict]:
        return [
            {
                "vendor": "debank",
                "account": wallet,
                "token": token.key,
                "amount": decimal_text(units, token.decimals),
            }
            for wallet in ADDRESSES
            for token, units in self._sum_wallet(wallet, now, before).items()
            if not token.is_scam and not token.is_nft
        ]

    def _sum_wallet(self, address: str, now: int, before: int) -> dict[Token, int]:
        """Base units that the visible history tells, of rows before `before`."""
        sums: dict[Token, int] = defaultdict(int)
        for tx in self.txs(address, now):
            if tx.time < before:
                for token, units in tx.stated(now):
                    sums[token] += units
        order = {token: number for number, token in enumerate(ALL_TOKENS)}
        return dict(sorted(sums.items(), key=lambda item: order[item[0]]))

    def residuals(self, at: int, now: int, since: int) -> list[dict]:
        return [
            row
            for wallet in ADDRESSES
            for row in chain_truth.residuals(self, wallet, at, now, since)
        ]

    def listed(self, now: int, since: int = -EVERYTHING) -> list[Tx]:
        return [tx for wallet in ADDRESSES for tx in self.txs(wallet, now) if tx.time >= since]

    def vanish(self, at: int, rng: Random, since: int) -> dict | None:
        gone = super().vanish(at, rng, since)
        self._reported.cache_clear()
        return gone

    def summary(self, now: int) -> dict[str, int]:
        return {"transactions": len(self.listed(now))}
