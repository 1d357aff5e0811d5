"""The world of the sandbox: the whole history as of any moment, and the truth about it."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable
from functools import lru_cache
from random import Random
from threading import Lock

from sandbox.world import chain_truth, exchange_truth
from sandbox.world.amounts import decimal_text
from sandbox.world.chain_history import ChainHistory
from sandbox.world.chain_mess import Deposit
from sandbox.world.chain_records import Tx
from sandbox.world.exchange_fills import Fill
from sandbox.world.exchange_history import ExchangeHistory
from sandbox.world.exchange_mess import LISTED
from sandbox.world.exchange_records import Currency, Entry
from sandbox.world.mess_tokens import ALL_TOKENS
from sandbox.world.moments import Moment, ceil_seconds, iso, seconds
from sandbox.world.tokens import WALLETS as ADDRESSES
from sandbox.world.tokens import Token

GENESIS = "2024-11-01T00:00:00Z"


class World:
    """Deterministic from (seed, start, scale, late_days, mess); a later `now` only adds to it, and
    only `vanish` takes anything away. `mess` makes it as odd as life; without it, reported balances
    are the sums of visible rows. `wallets`: so many of the exchange beside the ten that move (None:
    50 with mess, else none). `books_start` is when books of it begin, later than `start` for
    accounts that are older than their books; None: with the history.

    Moments are ISO text, aware datetimes or whole seconds. A row exists from `visible_at`, always
    later than its own time; statuses, categories and legs are those of `now`. All amounts in the
    truth are exact decimal text, all times ISO text:

    - `ledger(now)`: Coinbase rows, `amount` signed, network fee included; only is_settled counts.
    - `fills(now)`: Coinbase fills; `amount` in base coins, `wire_amount` the `size` as in the response.
    - `transactions(now)`: on-chain, one per (wallet, chain, tx_id), with gas and pays_gas.
    - `transfers(now)`: their legs, `amount` unsigned and exact, `wire_amount` the JSON number.
    - `balances(at, now)`: {vendor, account, token, amount} for every account and token with a
      visible row before `at` (zero sums included), from rows with time < `at` visible and
      settled at `now`. Failed legs, scam tokens and NFTs do not count; the wallets' own gas does,
      where it is listed. These are sums of movements: what vendors report is in `residuals`.
    - `residuals(at, now, since)`: {vendor, account, chain, token_id, token, listed, is_verified,
      reported, sum, residual, turnover, kind, status, parts, steps} for every account and token:
      what the vendor's list shows at `at`, minus what rows with `since` <= time < `at` visible at
      `now` tell (each amount as its JSON number says it). `parts` {kind: amount} add up to
      `residual`; `kind` joins their names with "+"; `steps` [time, amount, kind] say since when.
      Of the exchange there is one for each currency of its wallets, whose chain is None.
    - `unread_wallets(now)`: {vendor, account, wallet, token, status} of exchange wallets whose
      transactions answer with an error for good.
    - `unread(now)`: {account, chain, time, rows} of seconds that no walk can leave.
    - `positions(now)`: {account, chain, project, pool, token, amount} that lie in protocols.

    `now` decides what is visible; None means everything generated so far, in its last version.
    """

    def __init__(
        self,
        seed: int,
        start: Moment = GENESIS,
        scale: float = 1.0,
        late_days: int = 0,
        mess: bool = True,
        books_start: Moment | None = None,
        wallets: int | None = None,
    ) -> None:
        self.seed, self.start, self.scale, self.late_days = seed, seconds(start), scale, late_days
        self.mess = mess
        self.books_start = self.start if books_start is None else seconds(books_start)
        more = LISTED * mess if wallets is None else wallets
        self.exchange = ExchangeHistory(seed, self.start, scale, mess, more)
        self.chain = ChainHistory(seed, self.start, scale, late_days, mess)
        self._growing = Lock()
        self._reported = lru_cache(maxsize=64)(self._sum_reported)

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

    def _all_entries(self, now: Moment | None) -> list[Entry]:
        return [row for name in self.exchange.wallets for row in self.entries(name, now)]

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
        """Base units in one exchange wallet, as its balance says."""
        moment, base = self.grow(now), self.exchange.wallets[wallet].units
        rows = self.exchange.entries[wallet]
        return base + sum(row.units for row in rows if row.is_counted(moment))

    def wallet_updated(self, wallet: str, now: Moment) -> int:
        """When an exchange wallet changed last: its balance, its rows or what they say."""
        moment = self.grow(now)
        return exchange_truth.updated(self.exchange, wallet, moment)

    def reported_units(self, address: str, now: Moment) -> dict[Token, int]:
        """Base units of every token as the vendor's list shows them, scams included."""
        moment = self.grow(now)
        return self._reported(address, moment, self.chain.days)

    def _sum_reported(self, address: str, now: int, _days: int) -> dict[Token, int]:
        return chain_truth.reported_units(self.chain, address, self.txs(address, now), now)

    def deposits(self, address: str, now: Moment) -> list[Deposit]:
        """What an address has put into pools of protocols."""
        moment = self.grow(now)
        return [one for one in self.chain.deposits.get(address, []) if one.tx.is_there(moment)]

    def _sum_wallet(self, address: str, now: int, before: int) -> dict[Token, int]:
        """Base units that the visible history tells, of rows before `before`."""
        sums: dict[Token, int] = defaultdict(int)
        for tx in self.txs(address, now if now < 2**62 else None):
            if tx.time < before:
                for token, units in tx.stated(now):
                    sums[token] += units
        order = {token: number for number, token in enumerate(ALL_TOKENS)}
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
            [row for row in self._all_entries(last) if row.created >= first]
            if vendor == "coinbase"
            else [tx for wallet in ADDRESSES for tx in self.txs(wallet, last) if tx.time >= first]
        )
        rows = [row for row in rows if row.may_vanish and row.is_there(gone)]
        if not rows:
            return None
        row = rng.choice(rows)
        row.gone_at = gone
        self._reported.cache_clear()
        return row.truth(last)

    # The truth.

    def ledger(self, now: Moment | None = None) -> list[dict]:
        moment = self.grow(now)
        rows = self._all_entries(now)
        return [row.truth(moment) for row in sorted(rows, key=lambda row: (row.created, row.id))]

    def fills(self, now: Moment | None = None) -> list[dict]:
        return [fill.truth() for fill in self.visible_fills(now)]

    def transactions(self, now: Moment | None = None) -> list[dict]:
        moment = self.grow(now)
        truth = {}
        for wallet in ADDRESSES:
            for tx in self.txs(wallet, now):
                row = tx.truth(moment)
                first = truth.setdefault((wallet, tx.chain, tx.id), row)
                if first is not row:  # another row of the same hash
                    first["legs"] += row["legs"]
        return list(truth.values())

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
        coins: dict[Currency, int] = {}
        for name, one in self.exchange.wallets.items():
            rows = [row for row in self.entries(name, now) if row.created < before]
            if rows:
                coins[one.currency] = coins.get(one.currency, 0) + sum(
                    row.units for row in rows if row.is_settled(moment)
                )
        truth = [
            {
                "vendor": "coinbase",
                "account": "main",
                "token": currency.code,
                "amount": decimal_text(units, currency.exponent),
            }
            for currency, units in coins.items()
        ]
        for wallet in ADDRESSES:
            sums = self._sum_wallet(wallet, moment, before)
            truth += [
                {
                    "vendor": "debank",
                    "account": wallet,
                    "token": token.key,
                    "amount": decimal_text(units, token.decimals),
                }
                for token, units in sums.items()
                if not token.is_scam and not token.is_nft
            ]
        return truth

    def residuals(
        self, at: Moment | None = None, now: Moment | None = None, since: Moment | None = None
    ) -> list[dict]:
        """`at` None: `now`; `now` None: `at`, or all generated so far; `since` None: books_start."""
        seen = self.grow(at if now is None else now)
        instant = seen if at is None else min(ceil_seconds(at), 2**62)
        begin = self.books_start if since is None else seconds(since)
        return [
            *self.chain_residuals(instant, seen, begin),
            *self.exchange_residuals(instant, seen, begin),
        ]

    def chain_residuals(self, at: int, now: int, since: int) -> list[dict]:
        return [
            row
            for wallet in ADDRESSES
            for row in chain_truth.residuals(self.chain, wallet, at, now, since)
        ]

    def exchange_residuals(self, at: int, now: int, since: int) -> list[dict]:
        return exchange_truth.residuals(self.exchange, at, now, since)

    def unread_wallets(self, now: Moment | None = None) -> list[dict]:
        self.grow(now)
        return exchange_truth.unread(self.exchange)

    def unread(self, now: Moment | None = None) -> list[dict]:
        rows = [(wallet, self.txs(wallet, now)) for wallet in ADDRESSES]
        return [one for wallet, txs in rows for one in chain_truth.unread(wallet, txs)]

    def positions(self, now: Moment) -> list[dict]:
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
            for one in self.deposits(wallet, now)
        ]

    def summary(self, now: Moment) -> dict:
        """How much there is, for the first line of a log."""
        return {
            "seed": self.seed,
            "start": iso(self.start),
            "books_start": iso(self.books_start),
            "mess": self.mess,
            "scale": self.scale,
            "late_days": self.late_days,
            "wallets": len(self.exchange.wallets),
            "ledger": len(self._all_entries(now)),
            "fills": len(self.visible_fills(now)),
            "transactions": sum(len(self.txs(wallet, now)) for wallet in ADDRESSES),
        }
