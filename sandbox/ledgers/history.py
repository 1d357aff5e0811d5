"""The account of a ledger exchange, day after day, from a seed.

Every row is one change of one wallet's balance of one coin, and carries the balance after it. All
amounts are whole base units; the order of `rows` is the true one, also of those of one instant.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random

from sandbox.vendor import History, Plan
from sandbox.world.amounts import decimal_text
from sandbox.world.moments import DAY, NEVER, iso_micros

EVENTS_A_DAY = 0.35  # about 450 rows in two years
SHARED = 0.35  # of all events happen in the very instant of the one before
CYCLE = 60


@dataclass(frozen=True, slots=True)
class Coin:
    """An asset by the exchange's own code; `usd_micros` is the price of one in millionths of a
    dollar; `symbol` is what others call it."""

    code: str
    decimals: int
    usd_micros: int
    symbol: str = ""


COINS = (
    Coin("USD", 4, 1_000_000),
    Coin("BTC", 10, 67_060_000_000),
    Coin("ETH", 10, 2_536_070_000),
    Coin("ADA", 8, 392_000),
    Coin("DOT", 10, 6_110_000),
)


@dataclass(frozen=True)
class Shape:
    """How a vendor keeps its account: `wallets` by name, trades happen in the first of them.

    `types` maps each event to the vendor's word, by "out" and "in" where they differ; `tick` is the
    vendor's unit of time in microseconds, `ticks` that of a wallet where it is another; `ids(rng, number)` makes the id of a row. `lag`: seconds
    after which rows are listed. `fee_in_quote`: the fee of a purchase is paid in what was given;
    `fee_rows`: every fee is a row of its own, of the event "<event> fee".
    """

    vendor: str
    wallets: Sequence[str]
    types: Mapping[str, str]
    coins: Sequence[Coin] = COINS
    account: str = "main"
    tick: int = 1_000
    ticks: Mapping[str, int] = field(default_factory=dict)
    lag: int = 4
    events_a_day: float = EVENTS_A_DAY
    ids: Callable[[Random, int], str] = lambda rng, number: str(10**12 + number)
    fee_in_quote: bool = False
    fee_rows: bool = False


@dataclass(slots=True)
class Row:
    """`change` holds the `fee` (0 or more); `group` is what the rows of one event share."""

    id: str
    number: int
    time: int  # microseconds since 1970
    wallet: str
    coin: Coin
    event: str
    type: str
    change: int
    fee: int
    balance: int
    group: str
    visible_at: int
    gone_at: int = NEVER
    more: dict = field(default_factory=dict)

    def is_there(self, now: int) -> bool:
        return self.visible_at <= now < self.gone_at

    @property
    def may_vanish(self) -> bool:
        """A row that others follow with their balances cannot."""
        return False

    def amount(self, units: int) -> str:
        return decimal_text(units, self.coin.decimals)


class LedgerHistory(History):
    """`rows` in their true order. Subclasses give their vendor's `shape`."""

    shape: Shape

    def __init__(self, plan: Plan) -> None:
        self.plan, self.days, self.rows = plan, 0, list[Row]()
        self.held: dict[tuple[str, Coin], int] = defaultdict(int)
        self.rng = Random()

    def grow(self, until: int) -> None:
        while self.plan.start + self.days * DAY <= until:
            self._live_one_day()

    def _live_one_day(self) -> None:
        day, self.days = self.days, self.days + 1
        name = f"ledgerhouse/{self.plan.seed}/{self.shape.vendor}/{day}"
        self.rng = rng = Random(name)
        midnight = (self.plan.start + day * DAY) * 10**6
        rate = self.shape.events_a_day * self.plan.scale
        events = list(self._specials(day))
        events += [
            self.rng.choices(*self.events())[0]
            for _ in range(int(rate) + (rng.random() < rate % 1))
        ]
        times: list[int] = []
        for _ in events:
            shared = times and self.plan.mess and rng.random() < SHARED
            at = times[-1] if shared else midnight + rng.randrange(DAY * 10**6)
            times.append(at // self.shape.tick * self.shape.tick)
        for at, event in zip(sorted(times), events):
            event(self, at)

    def events(self) -> tuple[Sequence[Callable], Sequence[int]]:
        """What happens, and how often."""
        return EVENTS, WEIGHTS

    def _specials(self, day: int) -> Sequence[Callable]:
        """The events that every seed and scale must show."""
        cycle = day % CYCLE
        if day == 0:
            return (fund, fund, fund)
        special = {1: trade, 2: convert, 3: move, 4: withdraw, 5: reward, 6: charge, 7: odd}
        return (special[cycle],) if cycle in special else ()

    def add(
        self,
        event: str,
        at: int,
        wallet: str,
        coin: Coin,
        change: int,
        fee: int = 0,
        group: str = "",
    ) -> None:
        """One row; `change` holds the fee. What would overdraw is not."""
        if fee and self.shape.fee_rows:
            self.add(event, at, wallet, coin, change + fee, 0, group)
            self.add(f"{event} fee", at, wallet, coin, -fee, 0, group)
            return
        key = (wallet, coin)
        self.held[key] += change
        assert self.held[key] >= 0, f"{self.shape.vendor} overdraws {key}"
        way = "out" if change < 0 else "in"
        types = self.shape.types
        number, tick = len(self.rows), self.shape.ticks.get(wallet, 1)
        self.rows.append(
            Row(
                self.shape.ids(self.rng, number),
                number,
                at // tick * tick,
                wallet,
                coin,
                event,
                types.get(f"{event} {way}") or types[event],
                change,
                fee,
                self.held[key],
                group or f"{self.rng.getrandbits(64):016x}",
                at // 10**6 + self.shape.lag,
            )
        )

    def some(self, wallet: str, coin: Coin) -> int:
        """A part of what a wallet holds."""
        return self.held[wallet, coin] * self.rng.randrange(50, 400) // 1000

    def worth(self, coin: Coin, low: int, high: int) -> int:
        """Base units worth between `low` and `high` dollars, with all digits of the coin."""
        cents = self.rng.randrange(low * 100, high * 100)
        return cents * 10 ** (4 + coin.decimals) // coin.usd_micros

    # What the API serves from, and the truth.

    def visible(self, now: int) -> list[Row]:
        """Rows that are listed, in their true order, oldest first."""
        return [row for row in self.rows if row.is_there(now)]

    def balances_at(self, now: int) -> dict[tuple[str, Coin], int]:
        """What the exchange reports: {(wallet, coin): units}, zero where it was emptied."""
        held: dict[tuple[str, Coin], int] = {}
        for row in self.visible(now):
            held[row.wallet, row.coin] = row.balance
        return held

    def truths(self) -> Mapping[str, Callable[[int], list[dict]]]:
        return {"ledger": lambda now: [self.truth(row, now) for row in self.visible(now)]}

    def is_settled(self, row: Row, now: int) -> bool:
        """Whether it counts by then; a row of most ledgers is final from the beginning."""
        return True

    def truth(self, row: Row, now: int) -> dict:
        """What a row should become, as it is listed at `now`."""
        amount = row.amount(row.change)
        return {
            "vendor": self.shape.vendor,
            "account": self.shape.account,
            "wallet": row.wallet,
            "entry_id": row.id,
            "time": iso_micros(row.time),
            "type": row.type,
            "status": None,
            "is_settled": self.is_settled(row, now),
            "token": row.coin.code,
            "amount": amount,
            "wire_amount": amount,
            "fee": row.amount(row.fee) if row.fee else None,
            "balance": row.amount(row.balance),
            "trade_id": row.group,
            "visible_at": row.visible_at,
        }

    def balances(self, before: int, now: int) -> list[dict]:
        sums: dict[Coin, int] = {}
        for row in self.visible(now):
            if row.time < before * 10**6:
                sums[row.coin] = sums.get(row.coin, 0) + row.change * self.is_settled(row, now)
        return [
            {
                "vendor": self.shape.vendor,
                "account": self.shape.account,
                "token": coin.code,
                "amount": decimal_text(units, coin.decimals),
            }
            for coin, units in sums.items()
        ]

    def residuals(self, at: int, now: int, since: int) -> list[dict]:
        from sandbox.ledgers import truth

        return truth.residuals(self, at, now, since)

    def summary(self, now: int) -> dict[str, int]:
        return {"ledger": len(self.visible(now))}


def fund(h: LedgerHistory, at: int) -> None:
    """The first deposits: something of every coin, all in one instant."""
    for coin in h.shape.coins:
        h.add("deposit", at, h.shape.wallets[0], coin, h.worth(coin, 4_000, 9_000))


def deposit(h: LedgerHistory, at: int) -> None:
    coin = h.rng.choice(h.shape.coins)
    h.add("deposit", at, h.rng.choice(h.shape.wallets), coin, h.worth(coin, 50, 3000))


def withdraw(h: LedgerHistory, at: int) -> None:
    wallet, coin = h.rng.choice(h.shape.wallets), h.rng.choice(h.shape.coins)
    units = h.some(wallet, coin)
    if units < 1000:
        return deposit(h, at)
    h.add("withdrawal", at, wallet, coin, -units, fee=units // 997)


def trade(h: LedgerHistory, at: int) -> None:
    """Two rows of one instant; the fee is in the quote, or in what was bought."""
    wallet, quote = h.shape.wallets[0], h.shape.coins[0]
    base = h.rng.choice(h.shape.coins[1:])
    group, buys = f"{h.rng.getrandbits(64):016x}", h.rng.random() < 0.5
    given, taken = (quote, base) if buys else (base, quote)
    paid = h.some(wallet, given)
    got = paid * given.usd_micros * 10**taken.decimals // (taken.usd_micros * 10**given.decimals)
    if paid < 1000 or got < 1000:
        return deposit(h, at)
    if not buys or not (h.shape.fee_in_quote or h.rng.random() < 0.5):
        fee = got * 26 // 10_000
        h.add("trade", at, wallet, given, -paid, group=group)
        h.add("trade", at, wallet, taken, got - fee, fee, group)
    else:
        fee = paid * 26 // 10_000
        h.add("trade", at, wallet, taken, got, group=group)
        h.add("trade", at, wallet, given, -paid, fee, group)


def convert(h: LedgerHistory, at: int) -> None:
    wallet, (given, taken) = h.shape.wallets[0], h.rng.sample(list(h.shape.coins), 2)
    paid = h.some(wallet, given)
    got = paid * given.usd_micros * 10**taken.decimals // (taken.usd_micros * 10**given.decimals)
    if paid < 1000 or got < 1000:
        return deposit(h, at)
    group = f"{h.rng.getrandbits(64):016x}"
    h.add("conversion", at, wallet, given, -paid, group=group)
    h.add("conversion", at, wallet, taken, got, group=group)


def move(h: LedgerHistory, at: int) -> None:
    """From one wallet of the account to another."""
    if len(h.shape.wallets) < 2:
        return reward(h, at)
    source, target = h.rng.sample(list(h.shape.wallets), 2)
    coin = h.rng.choice(h.shape.coins)
    units = h.some(source, coin)
    if units < 1000:
        return deposit(h, at)
    group = f"{h.rng.getrandbits(64):016x}"
    h.add("transfer", at, source, coin, -units, group=group)
    h.add("transfer", at, target, coin, units, group=group)


def reward(h: LedgerHistory, at: int) -> None:
    coin = h.rng.choice(h.shape.coins[1:])
    h.add("reward", at, h.shape.wallets[-1], coin, h.worth(coin, 1, 9))


def charge(h: LedgerHistory, at: int) -> None:
    """A fee by itself, such as interest on a loan."""
    wallet, coin = h.shape.wallets[0], h.rng.choice(h.shape.coins)
    units = h.some(wallet, coin) // 400
    h.add("fee", at, wallet, coin, -units) if units else deposit(h, at)


def odd(h: LedgerHistory, at: int) -> None:
    """A type that no client has heard of, and it moves the balance."""
    coin = h.rng.choice(h.shape.coins)
    h.add("unknown", at, h.shape.wallets[0], coin, h.worth(coin, 1, 40))


EVENTS = (trade, convert, deposit, withdraw, move, reward, charge, odd)
WEIGHTS = (38, 6, 14, 10, 10, 14, 6, 1)
