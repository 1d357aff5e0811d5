"""The world of the sandbox: the whole history as of any moment, and the truth about it."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable
from functools import lru_cache
from random import Random
from threading import Lock

from sandbox.world.amounts import decimal_text
from sandbox.world.chain_history import ChainHistory
from sandbox.world.chain_records import Tx
from sandbox.world.exchange_history import ExchangeHistory
from sandbox.world.exchange_records import CURRENCIES, WALLETS, Entry, Fill
from sandbox.world.moments import Moment, ceil_seconds, iso, seconds
from sandbox.world.tokens import TOKENS, Token
from sandbox.world.tokens import WALLETS as ADDRESSES

GENESIS = "2024-11-01T00:00:00Z"


class World:
    """Deterministic from (seed, start, scale, late_days); a later `now` only adds to it, and only
    `vanish` takes anything away.

    Moments are ISO text, aware datetimes or whole seconds. A row exists from `visible_at`, always
    later than its own time; statuses, categories and legs are those of `now`. All amounts in the
    truth are exact decimal text, all times ISO text:

    - `ledger(now)`: Coinbase rows, `amount` signed, network fee included; only is_settled counts.
    - `fills(now)`: Coinbase fills; `amount` in base coins, `wire_amount` the `size` as in the response.
    - `transactions(now)`: on-chain, one per (wallet, chain, tx_id), with gas and pays_gas.
    - `transfers(now)`: their legs, `amount` unsigned and exact, `wire_amount` the JSON number.
    - `balances(at, now)`: {vendor, account, token, amount} for every account and token with a
      visible row before `at` (zero sums included), from rows with time < `at` visible and
      settled at `now`. Failed legs and scam tokens do not count; the wallets' own gas does.

    `now` decides what is visible; None means everything generated so far, in its last version.
    """

    def __init__(
        self, seed: int, start: Moment = GENESIS, scale: float = 1.0, late_days: int = 0
    ) -> None:
        self.seed, self.start, self.scale, self.late_days = seed, seconds(start), scale, late_days
        self.exchange = ExchangeHistory(seed, self.start, scale)
        self.chain = ChainHistory(seed, self.start, scale, late_days)
        self._growing = Lock()
        self._sums = lru_cache(maxsize=64)(self._sum_wallet)

    def grow(self, now: Moment | None) -> int:
        """Generate up to `now`; returns it in seconds."""
        if now is None:
            return 2**62
        moment = seconds(now)
        with self._growing:  # a test may ask while the server answers
            self.exchange.grow(moment)
            self.chain.grow(moment)
        return moment

    # What the vendors serve from.

    def entries(self, wallet: str, now: Moment | None = None) -> list[Entry]:
        """Visible ledger rows of one wallet (by name), by (created, id), oldest first."""
        moment = self.grow(now)
        return [row for row in self.exchange.entries[wallet] if row.is_there(moment)]

    def visible_fills(self, now: Moment | None = None) -> list[Fill]:
        moment = self.grow(now)
        return [fill for fill in self.exchange.fills if fill.visible_at <= moment]

    def txs(self, wallet: str, now: Moment | None = None, chain: str | None = None) -> list[Tx]:
        """Visible transactions of one wallet by (time, id), oldest first; [] for a stranger."""
        moment = self.grow(now)
        rows = (
            self.chain.wallets.get(wallet, [])
            if chain is None
            else self.chain.chains.get((wallet, chain), [])
        )
        return [tx for tx in rows if tx.is_there(moment)]

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
        self.grow(now)
        rows = (
            self.chain.wallets.get(wallet, [])
            if chain is None
            else self.chain.chains.get((wallet, chain), [])
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

    def wallet_units(self, wallet: str, now: Moment) -> int:
        """Base units in one exchange wallet: its visible and settled rows."""
        moment = self.grow(now)
        return sum(row.units for row in self.entries(wallet, now) if row.is_settled(moment))

    def token_units(self, address: str, now: Moment) -> dict[Token, int]:
        """Base units of every token an address ever moved, scams included."""
        moment = self.grow(now)
        return self._sums(address, moment, self.chain.days)

    def _sum_wallet(
        self, address: str, now: int, _days: int, before: int = 2**62
    ) -> dict[Token, int]:
        sums: dict[Token, int] = defaultdict(int)
        for tx in self.txs(address, now if now < 2**62 else None):
            if tx.time < before:
                for token, units in tx.changes(now):
                    sums[token] += units
        order = {token: number for number, token in enumerate(TOKENS)}
        return dict(sorted(sums.items(), key=lambda item: order[item[0]]))

    def vanish(
        self, at: Moment, vendor: str, rng: Random, since: Moment | None = None
    ) -> dict | None:
        """One row of the vendor's, drawn by `rng`, is gone from `at` on: from histories and balances.

        Drawn among those listed a second before, with time >= `since`, that nothing else leans
        on. Returns the truth about it as it last stood, or None where there is no such row.
        """
        gone = self.grow(at)
        first, last = -(2**62) if since is None else seconds(since), gone - 1
        rows = (
            [row for name in WALLETS for row in self.entries(name, last) if row.created >= first]
            if vendor == "coinbase"
            else [tx for wallet in ADDRESSES for tx in self.txs(wallet, last) if tx.time >= first]
        )
        rows = [row for row in rows if row.may_vanish and row.is_there(gone)]
        if not rows:
            return None
        row = rng.choice(rows)
        row.gone_at = gone
        self._sums.cache_clear()
        return row.truth(last)

    # The truth.

    def ledger(self, now: Moment | None = None) -> list[dict]:
        moment = self.grow(now)
        rows = [row for name in WALLETS for row in self.entries(name, now)]
        return [row.truth(moment) for row in sorted(rows, key=lambda row: (row.created, row.id))]

    def fills(self, now: Moment | None = None) -> list[dict]:
        return [fill.truth() for fill in self.visible_fills(now)]

    def transactions(self, now: Moment | None = None) -> list[dict]:
        moment = self.grow(now)
        return [tx.truth(moment) for wallet in ADDRESSES for tx in self.txs(wallet, now)]

    def transfers(self, now: Moment | None = None) -> list[dict]:
        moment = self.grow(now)
        return [
            leg
            for wallet in ADDRESSES
            for tx in self.txs(wallet, now)
            for leg in tx.truth_transfers(moment)
        ]

    def balances(self, at: Moment | None = None, now: Moment | None = None) -> list[dict]:
        moment = self.grow(now)
        before = 2**62 if at is None else ceil_seconds(at)
        coins: dict[str, int] = {}
        for name, (code, _) in WALLETS.items():
            rows = [row for row in self.entries(name, now) if row.created < before]
            if rows:
                coins[code] = coins.get(code, 0) + sum(
                    row.units for row in rows if row.is_settled(moment)
                )
        truth = [
            {
                "vendor": "coinbase",
                "account": "main",
                "token": code,
                "amount": decimal_text(units, CURRENCIES[code].exponent),
            }
            for code, units in coins.items()
        ]
        for wallet in ADDRESSES:
            sums = self._sum_wallet(wallet, moment, 0, before)
            truth += [
                {
                    "vendor": "debank",
                    "account": wallet,
                    "token": token.key,
                    "amount": decimal_text(units, token.decimals),
                }
                for token, units in sums.items()
                if not token.is_scam
            ]
        return truth

    def summary(self, now: Moment) -> dict:
        """How much there is, for the first line of a log."""
        return {
            "seed": self.seed,
            "start": iso(self.start),
            "scale": self.scale,
            "late_days": self.late_days,
            "ledger": sum(len(self.entries(name, now)) for name in WALLETS),
            "fills": len(self.visible_fills(now)),
            "transactions": sum(len(self.txs(wallet, now)) for wallet in ADDRESSES),
        }
