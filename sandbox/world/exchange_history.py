"""The Coinbase account "main", day after day, from a seed: like chain_history, but a ledger."""

from __future__ import annotations

from random import Random
from uuid import UUID

from sandbox.world import exchange_kinds as kinds
from sandbox.world import exchange_mess
from sandbox.world.amounts import keep_digits
from sandbox.world.exchange_fills import Fill
from sandbox.world.exchange_records import CURRENCIES, WALLETS, Currency, Entry, Wallet
from sandbox.world.moments import DAY
from sandbox.world.purse import Purse

EVENTS_A_DAY = 1.4  # about 3,000 ledger rows in two years
CYCLE = 120
HOUR = 3600
_KINDS = (
    kinds.order,
    kinds.convert,
    kinds.deposit,
    kinds.withdraw,
    kinds.receive,
    kinds.send,
    kinds.reward,
    kinds.stake,
    kinds.interest,
    kinds.subscription,
    kinds.unknown,
)
_WEIGHTS = (38, 10, 9, 3, 9, 10, 12, 3, 5, 2, 0.4)


class ExchangeHistory:
    """`wallets` by name, `entries` of each by (created, id), `fills` by sequence; oldest first.

    `more` wallets beside those that move.
    """

    def __init__(
        self, seed: int, start: int, scale: float, mess: bool = False, more: int = 0
    ) -> None:
        self.seed, self.start, self.scale, self.days = seed, start, scale, 0
        self.mess = mess
        self.purse = Purse()
        self.rng = Random(f"ledgerhouse/{seed}/exchange")
        ids = {name: self.uuid() for name in WALLETS}
        asset_ids = {code: self.uuid() for code in CURRENCIES}
        self.user_id = self.uuid()
        self.wallets = {
            name: Wallet(
                name,
                ids[name],
                CURRENCIES[code],
                kind,
                asset_ids[code],
                start,
                start,
                name != "Staked ADA",
            )
            for name, (code, kind) in WALLETS.items()
        }
        self.wallets |= exchange_mess.wallets(seed, start, more, mess)
        self.entries: dict[str, list[Entry]] = {name: [] for name in self.wallets}
        self.fills: list[Fill] = []

    def grow(self, until: int) -> None:
        """Live every day that begins at or before `until`."""
        while self.start + self.days * DAY <= until:
            self._live_one_day()

    def _live_one_day(self) -> None:
        day, self.days = self.days, self.days + 1
        midnight = self.start + day * DAY
        self.rng = rng = Random(f"ledgerhouse/{self.seed}/exchange/{day}")
        self._today: dict[str, list[Entry]] = {}
        self.fills_today: list[Fill] = []
        slots = [
            (midnight + at, order, doing) for order, (at, *doing) in enumerate(self._specials(day))
        ]
        if self.mess:
            messy = enumerate(exchange_mess.slots(day), len(slots))
            slots += [(midnight + at, order, doing) for order, (at, *doing) in messy]
        rate = EVENTS_A_DAY * self.scale
        for _ in range(int(rate) + (rng.random() < rate % 1)):
            at = midnight + rng.randrange(DAY)
            for _ in range(1 if rng.random() < 0.85 else 2):
                slots.append((at, len(slots), [rng.choices(_KINDS, _WEIGHTS)[0]]))
        for at, _, (kind, *how) in sorted(slots, key=lambda slot: slot[:2]):
            kind(self, at, **(how[0] if how else {}))
        for name, rows in self._today.items():
            self.entries[name].extend(sorted(rows, key=lambda row: (row.created, row.id)))
        self.fills.extend(sorted(self.fills_today, key=lambda fill: (fill.sequence, fill.entry_id)))

    def _specials(self, day: int):
        """(second of the day, kind, arguments): the cases every seed and scale must show."""
        k = kinds
        cycle = day % CYCLE
        if cycle == 0:
            yield 30, k.deposit, {"dollars": 60_000, "hours": 0}
            for at, code in enumerate(k.COINS):
                yield (
                    60 + at // 3,
                    k.receive,
                    {
                        "code": code,
                        "units": 25_000
                        * 10 ** (6 + CURRENCIES[code].exponent)
                        // CURRENCIES[code].usd_micros,
                        "hours": 0,
                    },
                )
        elif cycle == 1:
            yield (
                14 * HOUR,
                k.order,
                {"product": "BTC-USD", "side": "BUY", "fills": 3, "in_quote": False},
            )
            yield (
                15 * HOUR,
                k.order,
                {"product": "ETH-USDC", "side": "BUY", "fills": 2, "in_quote": True},
            )
            yield (
                16 * HOUR,
                k.order,
                {"product": "SOL-USDC", "side": "SELL", "fills": 1, "in_quote": False},
            )
        elif cycle == 2:
            yield 14 * HOUR, k.convert, {"source": "USDC", "target": "ETH"}
            yield 14 * HOUR, k.convert, {"source": "BTC", "target": "USDC"}
            yield 15 * HOUR, k.stake
            yield 16 * HOUR, k.interest, {"delay": 9 * HOUR + 900}
        elif cycle == 3:
            yield 10 * HOUR, k.deposit, {"dollars": 2_500, "hours": 52}
            yield 11 * HOUR, k.withdraw, {"end": "canceled"}
            yield 12 * HOUR, k.send, {"code": "USDC", "end": "failed"}
            yield 13 * HOUR, k.subscription
        elif cycle == 4:
            yield 10 * HOUR, k.unknown
            yield 11 * HOUR, k.send, {"code": "ETH", "pending": 0, "confirm": 5 * HOUR, "delay": 9}
            yield 12 * HOUR, k.send, {"code": "BTC", "pending": 4 * HOUR}
            yield 13 * HOUR, k.withdraw, {"hours": 0}
        elif cycle == 5 and day // CYCLE % 2 == 0:
            # 27 rows of one second in each wallet: no page of 25 can hold them.
            yield (
                15 * HOUR,
                k.order,
                {"product": "BTC-USD", "side": "BUY", "fills": 27, "in_quote": False},
            )
        elif cycle == 6:
            yield 9 * HOUR, k.reward
            yield 10 * HOUR, k.convert, {"source": "SOL", "target": "DOT"}

    def add(
        self,
        wallet: str,
        kind: str,
        when: int,
        units: int,
        *,
        pending: int = 0,
        end: str | None = None,
        delay: int | None = None,
        confirm: int = 0,
        fee: int | None = None,
        **more,
    ) -> None:
        """One ledger row of signed `units`; `pending` seconds until settled, or until its `end`."""
        if not units and more.get("has_amount", True):
            return
        row = Entry(
            wallet,
            self.wallets[wallet].id,
            self.currency(wallet),
            self.uuid(),
            kind,
            when,
            units,
            when + (delay or self.delay()),
            fee_units=fee,
            confirmed_at=when + confirm,
            **more,
        )
        if self.mess:
            row.time_form = exchange_mess.time_form(row)
        if end is None and units < 0 and pending and self.rng.random() < 0.06:
            end = self.rng.choice(("canceled", "failed"))
        if end:
            row.ended_at, row.end_status = when + (pending or 5 * HOUR), end
            row.tx_hash, row.fee_units, row.confirmed_at = None, None, when
        else:
            row.settled_at = when + pending
            if units > 0:
                self.purse.put("main", wallet, units, max(row.visible_at, row.settled_at))
            else:
                self.purse.take("main", wallet, -units, when)
        self._today.setdefault(wallet, []).append(row)

    def part(self, wallet: str, when: int, most: int) -> int:
        """Some of what the wallet can spend: at most `most` thousandths, in round digits."""
        have = self.purse.held("main", when).get(wallet, 0)
        return keep_digits(have * self.rng.randrange(most * 100, most * 1000 + 2) // 1_000_000, 9)

    def delay(self) -> int:
        """Seconds until the ledger shows a row: mostly seconds, rarely hours."""
        dice = self.rng.random()
        if dice < 0.9:
            return self.rng.randrange(1, 15)
        return self.rng.randrange(60, 1800) if dice < 0.97 else self.rng.randrange(1800, 10 * HOUR)

    def currency(self, wallet: str) -> Currency:
        return self.wallets[wallet].currency

    def uuid(self) -> str:
        return str(UUID(int=self.rng.getrandbits(128), version=5))

    def hash(self, currency: Currency) -> str:
        prefix = "0x" if currency.network == "ethereum" else ""
        return f"{prefix}{self.rng.getrandbits(256):064x}"
