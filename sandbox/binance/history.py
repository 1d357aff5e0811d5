"""What happens on a Binance account: each event is a record of one list, and the entries it makes.

No entry carries a balance. The record is what the API lists; entries are made beside it, from the
same event, so that they are a truth of their own. Trades may be listed hours after the balances
have moved.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sandbox.ledgers.history import Coin, LedgerHistory, Row, Shape
from sandbox.vendor import Plan
from sandbox.world.amounts import decimal_text

SPOT, FUNDING, EARN = "spot", "funding", "earn"
USDT = Coin("USDT", 8, 1_000_000)
FDUSD = Coin("FDUSD", 8, 1_000_000)
BTC = Coin("BTC", 8, 67_060_000_000)
ETH = Coin("ETH", 8, 2_536_070_000)
BNB = Coin("BNB", 8, 585_300_000)
LDO = Coin("LDO", 8, 1_870_000)
EUR = Coin("EUR", 8, 1_080_000)
MARKETS = (
    (BTC, USDT), (ETH, USDT), (ETH, BTC), (BNB, USDT), (BNB, BTC), (FDUSD, USDT), (BTC, FDUSD),
    (ETH, FDUSD), (LDO, USDT), (LDO, BTC),
)  # fmt: skip
HOUR = 3600


@dataclass(slots=True)
class Listed:
    """A record of the list `name` (trades: "trades <symbol>"); `final` replaces some of its fields
    from `final_at` on."""

    name: str
    time: int  # microseconds since 1970, as the list bounds it
    visible_at: int
    record: dict
    final_at: int = 0
    final: dict | None = None

    def at(self, now: int) -> dict:
        return self.record | (self.final or {} if now >= self.final_at else {})


class BinanceHistory(LedgerHistory):
    shape = Shape(
        "binance",
        wallets=(SPOT, FUNDING, EARN),
        types={},
        coins=(USDT, BTC, ETH, BNB, FDUSD, LDO),
        events_a_day=0.8,
    )

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        self.records: dict[str, list[Listed]] = defaultdict(list)
        self.equals: dict[str, int] = defaultdict(int)
        self.next_trade: dict[str, int] = defaultdict(lambda: 27_000)
        self.products: dict[tuple[str, Coin], int] = defaultdict(int)

    def events(self) -> tuple[Sequence[Callable], Sequence[int]]:
        return EVENTS, WEIGHTS

    def _specials(self, day: int) -> Sequence[Callable]:
        if day == 0:
            return (first_money, first_money)
        place = day % 60
        return (EVENTS[place - 1],) if 0 < place <= len(EVENTS) else ()

    def entry(
        self,
        entry_id: str,
        at: int,
        wallet: str,
        coin: Coin,
        change: int,
        type: str,
        listed: Listed,
        settles_at: int | None = 0,
        product: str = "",
    ) -> None:
        """One entry of a record; it is final from `settles_at` on, never where it is None."""
        if settles_at is not None:
            self.held[wallet, coin] += change
            if product:
                self.products[product, coin] += change
        self.rows.append(
            Row(
                entry_id, len(self.rows), at, wallet, coin, type, type, change, 0, 0, entry_id,
                listed.visible_at,
                more={"settles_at": settles_at, "product": product, "moved_at": at // 10**6 + 1},
            )
        )  # fmt: skip

    def enlist(self, name: str, at: int, record: dict, late: int = 0, **final) -> Listed:
        listed = Listed(name, at, at // 10**6 + self.shape.lag + late, record, **final)
        self.records[name].append(listed)
        return listed

    def lists(self, name: str, now: int) -> list[Listed]:
        """The records of a list that are shown, oldest first."""
        return [listed for listed in self.records[name] if listed.visible_at <= now]

    def is_settled(self, row: Row, now: int) -> bool:
        at = row.more["settles_at"]
        return at is not None and at <= now

    def truth(self, row: Row, now: int) -> dict:
        return super().truth(row, now) | {"balance": None}

    def balances_at(self, now: int) -> dict[tuple[str, Coin], int]:
        """Balances move at once, whenever the entry is listed."""
        held: dict[tuple[str, Coin], int] = {}
        for row in self.rows:
            if row.more["moved_at"] <= now and self.is_settled(row, now):
                held[row.wallet, row.coin] = held.get((row.wallet, row.coin), 0) + row.change
        return held

    def positions(self, product: str, now: int) -> dict[Coin, int]:
        held: dict[Coin, int] = defaultdict(int)
        for row in self.rows:
            if row.more["product"] == product and row.more["moved_at"] <= now:
                held[row.coin] += row.change
        return {coin: units for coin, units in held.items() if units}

    def one_more(self, name: str) -> str:
        """The id of an entry that has none of its own: what it says, and which of equals it is."""
        self.equals[name] += 1
        return f"{name}_{self.equals[name]}"

    def number(self) -> int:
        """An id that no other record has."""
        return 10**10 + sum(map(len, self.records.values())) * 7 + self.rng.randrange(7)


def text(units: int) -> str:
    return decimal_text(units, 8)


def ms(at: int) -> str:
    """A time as a bare number (see sandbox.ledgers.api.number)."""
    return f"#number {at // 1000}"


def first_money(h: BinanceHistory, at: int) -> None:
    for coin in h.shape.coins:
        _deposit(h, at, coin, h.worth(coin, 4_000, 9_000), SPOT)


def deposit(h: BinanceHistory, at: int) -> None:
    coin = h.rng.choice(h.shape.coins)
    _deposit(h, at, coin, h.worth(coin, 50, 3000), h.rng.choice((SPOT, SPOT, FUNDING)))


def _deposit(h: BinanceHistory, at: int, coin: Coin, units: int, wallet: str) -> None:
    failed = h.rng.random() < 0.08
    waits = 0 if h.rng.random() < 0.6 else h.rng.randrange(60, 40 * HOUR)
    name = str(h.number())
    settles_at = None if failed else at // 10**6 + waits
    listed = h.enlist(
        "deposits", at,
        {"id": name, "amount": text(units), "coin": coin.code, "network": "ETH",
         "status": "#number 0", "address": "0x6915", "addressTag": "", "txId": f"0x{name}",
         "insertTime": ms(at), "transferType": "#number 0", "confirmTimes": "12/12",
         "walletType": f"#number {int(wallet == FUNDING)}"},
        final_at=at // 10**6 + waits,
        final={"status": f"#number {7 if failed else 1}"},
    )  # fmt: skip
    h.entry(f"deposit:{name}", at, wallet, coin, units, "deposit", listed, settles_at)


def withdraw(h: BinanceHistory, at: int) -> None:
    wallet, coin = h.rng.choice((SPOT, SPOT, FUNDING)), h.rng.choice(h.shape.coins)
    units = h.some(wallet, coin)
    if units < 10_000:
        return deposit(h, at)
    at, fee = at // 10**6 * 10**6, units // 997
    failed, name = h.rng.random() < 0.1, f"{h.rng.getrandbits(128):032x}"
    done = at // 10**6 + h.rng.randrange(60, 30 * HOUR)
    from sandbox.world.moments import iso_micros

    listed = h.enlist(
        "withdrawals", at,
        {"id": name, "amount": text(units - fee), "transactionFee": text(fee), "coin": coin.code,
         "status": "#number 4", "address": "0x94df", "txId": f"0x{name}",
         "applyTime": iso_micros(at)[:19].replace("T", " "), "network": "ETH",
         "transferType": "#number 0", "walletType": f"#number {int(wallet == FUNDING)}"},
        final_at=done, final={"status": f"#number {5 if failed else 6}"},
    )  # fmt: skip
    settles_at = None if failed else done
    parts = (("amount", units - fee), ("fee", fee))
    for part, gone in parts:
        h.entry(
            f"withdrawal:{name}:{part}", at, wallet, coin, -gone, "withdrawal", listed, settles_at
        )


def _cost(base: Coin, quote: Coin, units: int) -> int:
    return units * base.usd_micros // quote.usd_micros


def trade(h: BinanceHistory, at: int) -> None:
    base, quote = h.rng.choice(MARKETS)
    buys = h.rng.random() < 0.5
    if buys:
        units = h.some(SPOT, quote) * quote.usd_micros // base.usd_micros
    else:
        units = h.some(SPOT, base)
    fill(h, at, base, quote, units, buys, late_hours(h))


def round_trip(h: BinanceHistory, at: int) -> None:
    """Bought and sold again at one price: nothing but the fee is left of it, if there is one."""
    base, quote = h.rng.choice(MARKETS)
    units = h.some(SPOT, quote) * quote.usd_micros // base.usd_micros
    if fill(h, at, base, quote, units, True, late_hours(h), in_bnb=True):
        fill(h, at, base, quote, units, False, late_hours(h), in_bnb=True)


def late_hours(h: BinanceHistory) -> int:
    return h.rng.randrange(8 * HOUR) if h.plan.mess and h.rng.random() < 0.2 else 0


def fill(
    h: BinanceHistory, at: int, base: Coin, quote: Coin, units: int, buys: bool, late: int = 0,
    in_bnb: bool = False, rate: int = 1000,
) -> bool:  # fmt: skip
    """A trade of `units` of base; its fee is a thousandth, `rate` millionths."""
    cost = _cost(base, quote, units)
    if units < 10_000 or cost < 10_000:
        return False
    taken, got = (base, units) if buys else (quote, cost)
    coin, fee = taken, got * rate // 10**6
    if in_bnb or h.rng.random() < 0.5:
        in_coin = _cost(taken, BNB, fee)
        spare = h.held[SPOT, BNB] - (units if base is BNB and not buys else 0)
        if 0 < in_coin < spare:
            coin, fee = BNB, in_coin
    symbol = base.code + quote.code
    number = h.next_trade[symbol] = h.next_trade[symbol] + h.rng.randrange(1, 900)
    listed = h.enlist(
        f"trades {symbol}", at,
        {"symbol": symbol, "id": f"#number {number}", "orderId": f"#number {number // 3}",
         "orderListId": "#number -1", "price": f"{base.usd_micros / quote.usd_micros:.8f}",
         "qty": text(units), "quoteQty": text(cost), "commission": text(fee),
         "commissionAsset": coin.code, "time": ms(at), "isBuyer": buys, "isMaker": False,
         "isBestMatch": True},
        late,
    )  # fmt: skip
    name, way = f"trade:{symbol}:{number}", 1 if buys else -1
    h.entry(f"{name}:base", at, SPOT, base, way * units, "trade", listed)
    h.entry(f"{name}:quote", at, SPOT, quote, -way * cost, "trade", listed)
    if fee:
        h.entry(f"{name}:fee", at, SPOT, coin, -fee, "trade", listed)
    return True


def convert(h: BinanceHistory, at: int) -> None:
    given, taken = h.rng.sample(list(h.shape.coins), 2)
    paid = h.some(SPOT, given)
    got = _cost(given, taken, paid)
    if paid < 10_000 or got < 10_000:
        return deposit(h, at)
    failed, name = h.rng.random() < 0.1, h.number()
    listed = h.enlist(
        "converts", at,
        {"quoteId": str(name), "orderId": f"#number {name}",
         "orderStatus": "FAIL" if failed else "SUCCESS", "fromAsset": given.code,
         "fromAmount": text(paid), "toAsset": taken.code, "toAmount": text(got), "ratio": "1",
         "inverseRatio": "1", "createTime": ms(at)},
    )  # fmt: skip
    settles_at = None if failed else 0
    h.entry(f"convert:{name}:from", at, SPOT, given, -paid, "convert", listed, settles_at)
    h.entry(f"convert:{name}:to", at, SPOT, taken, got, "convert", listed, settles_at)


def dust(h: BinanceHistory, at: int) -> None:
    """Several coins into BNB under one id."""
    coins = [coin for coin in (ETH, LDO, FDUSD) if h.held[SPOT, coin] > 10**6]
    if not coins:
        return deposit(h, at)
    number, details = h.number(), []
    entries = []
    for coin in coins:
        paid = h.held[SPOT, coin] // 5000 + 1
        got = _cost(coin, BNB, paid) * 98 // 100
        if not got:
            continue
        details.append(
            {"transId": f"#number {number}", "serviceChargeAmount": text(got // 50),
             "amount": f"#number {text(paid)}", "operateTime": ms(at),
             "transferedAmount": text(got), "fromAsset": coin.code}
        )  # fmt: skip
        entries += [(coin, "from", coin, -paid), (coin, "to", BNB, got)]
    listed = h.enlist(
        "dust", at,
        {"operateTime": ms(at), "totalTransferedAmount": "0", "totalServiceChargeAmount": "0",
         "transId": f"#number {number}", "userAssetDribbletDetails": details},
    )  # fmt: skip
    for of, part, coin, change in entries:
        h.entry(f"dust:{number}:{of.code}:{part}", at, SPOT, coin, change, "dust", listed)


def dividend(h: BinanceHistory, at: int) -> None:
    coin, name = h.rng.choice(h.shape.coins[1:]), h.number()
    units = h.worth(coin, 1, 9)
    listed = h.enlist(
        "dividends", at,
        {"id": f"#number {name}", "amount": text(units), "asset": coin.code, "divTime": ms(at),
         "enInfo": "Launchpool", "tranId": "#number 2968885920"},
    )  # fmt: skip
    h.entry(f"dividend:{name}", at, SPOT, coin, units, "Launchpool", listed)


def subscribe(h: BinanceHistory, at: int) -> None:
    product, coin = h.rng.choice(("flexible", "locked")), h.rng.choice(h.shape.coins)
    parts = {SPOT: h.some(SPOT, coin), FUNDING: h.some(FUNDING, coin)}
    if sum(parts.values()) < 10_000:
        return deposit(h, at)
    if not parts[FUNDING]:
        source = "SPOT"
    else:
        source = "SPOTANDFUNDING" if parts[SPOT] else "FUNDING"
    name, failed = h.number(), h.rng.random() < 0.1
    record = {
        "amount": text(sum(parts.values())), "asset": coin.code, "time": ms(at),
        "purchaseId": f"#number {name}", "type": "NORMAL", "sourceAccount": source,
        "status": "FAILED" if failed else "SUCCESS",
    }  # fmt: skip
    if source == "SPOTANDFUNDING":
        record |= {"amtFromSpot": text(parts[SPOT]), "amtFromFunding": text(parts[FUNDING])}
    listed = h.enlist(f"{product} subscriptions", at, record)
    type, settles_at = f"{product} subscription", None if failed else 0
    entry = f"{product}-subscription:{name}"
    for wallet, units in parts.items():
        if units:
            h.entry(f"{entry}:{wallet}", at, wallet, coin, -units, type, listed, settles_at)
    total = sum(parts.values())
    h.entry(
        f"{entry}:earn", at, EARN, coin, total, type, listed, settles_at, "" if failed else product
    )


def redeem(h: BinanceHistory, at: int) -> None:
    places = [place for place, units in h.products.items() if units > 10_000]
    if not places:
        return subscribe(h, at)
    product, coin = h.rng.choice(sorted(places, key=lambda place: (place[0], place[1].code)))
    units = h.products[product, coin] * h.rng.randrange(20, 101) // 100
    name, wallet = h.number(), SPOT
    record = {
        "amount": text(units), "asset": coin.code, "time": ms(at), "redeemId": f"#number {name}",
        "status": "PAID",
    }  # fmt: skip
    if product == "flexible":
        wallet = h.rng.choice((SPOT, FUNDING))
        record["destAccount"] = wallet.upper()
    listed = h.enlist(f"{product} redemptions", at, record)
    entry, type = f"{product}-redemption:{name}", f"{product} redemption"
    h.entry(f"{entry}:earn", at, EARN, coin, -units, type, listed, product=product)
    h.entry(f"{entry}:to", at, wallet, coin, units, type, listed)


def interest(h: BinanceHistory, at: int) -> None:
    """Twice the same in one instant at times; what is paid to spot is a dividend, too."""
    places = [place for place, units in h.products.items() if units > 10**6]
    if not places:
        return subscribe(h, at)
    product, coin = h.rng.choice(sorted(places, key=lambda place: (place[0], place[1].code)))
    units = h.products[product, coin] // 30_000 + 1
    record = {"asset": coin.code, "time": ms(at)}
    if product == "flexible":
        of = h.rng.choice(("REALTIME", "REALTIME", "BONUS"))
        record |= {"rewards": text(units), "projectId": f"{coin.code}001", "type": of}
        name = f"flexible-reward_{at // 1000}_{coin.code}_{of}_{text(units)}"
        for _ in range(h.rng.randrange(1, 3)):
            listed = h.enlist("flexible rewards", at, record)
            paid = of == "REALTIME"
            h.entry(
                h.one_more(name), at, EARN if paid else SPOT, coin, units, f"flexible {of}", listed,
                0 if paid else None, product if paid else "",
            )  # fmt: skip
        return
    record |= {"positionId": "#number 123123", "amount": text(units), "type": "Locked Rewards"}
    listed = h.enlist("locked rewards", at, record)
    name = h.one_more(f"locked-reward_{at // 1000}_123123_{coin.code}_{text(units)}")
    h.entry(name, at, SPOT, coin, units, "Locked Rewards", listed, None)
    dividend(h, at)


def fiat(h: BinanceHistory, at: int) -> None:
    out = h.held[SPOT, EUR] > 10**9 and h.rng.random() < 0.5
    units = h.some(SPOT, EUR) if out else h.worth(EUR, 20, 900)
    fee, name = units // 200, f"{h.rng.getrandbits(128):032x}"
    failed = h.rng.random() < 0.15
    listed = h.enlist(
        f"fiat orders {int(out)}", at,
        {"orderNo": name, "fiatCurrency": "EUR", "indicatedAmount": text(units),
         "amount": text(units - fee), "totalFee": text(fee), "method": "BankAccount",
         "status": "Failed" if failed else "Successful", "createTime": ms(at),
         "updateTime": ms(at)},
    )  # fmt: skip
    settles_at, type = None if failed else 0, "fiat BankAccount"
    way = -1 if out else 1
    h.entry(f"fiat:{name}:amount", at, SPOT, EUR, way * (units - fee), type, listed, settles_at)
    if out and fee:
        h.entry(f"fiat:{name}:fee", at, SPOT, EUR, -fee, type, listed, settles_at)


def payment(h: BinanceHistory, at: int) -> None:
    """Coins bought by card, or with euros that the account holds."""
    coin, cash = h.rng.choice((BTC, ETH, BNB)), h.held[SPOT, EUR] > 10**9
    paid = h.some(SPOT, EUR) if cash else h.worth(EUR, 20, 300)
    got, name = _cost(EUR, coin, paid), f"{h.rng.getrandbits(128):032x}"
    failed, method = h.rng.random() < 0.15, "Cash Balance" if cash else "Credit Card"
    listed = h.enlist(
        "payments 0", at,
        {"orderNo": name, "sourceAmount": text(paid), "fiatCurrency": "EUR",
         "obtainAmount": text(got), "cryptoCurrency": coin.code, "totalFee": "0", "price": "1",
         "status": "Failed" if failed else "Completed", "paymentMethod": method,
         "createTime": ms(at), "updateTime": ms(at)},
    )  # fmt: skip
    settles_at, type = None if failed else 0, f"payment {method}"
    h.entry(f"payment:{name}:crypto", at, SPOT, coin, got, type, listed, settles_at)
    if cash:
        h.entry(f"payment:{name}:fiat", at, SPOT, EUR, -paid, type, listed, settles_at)


def move(h: BinanceHistory, at: int) -> None:
    """Between spot and funding, or to futures, of which this account shows one side only."""
    way = h.rng.choice(("MAIN_FUNDING", "FUNDING_MAIN", "MAIN_UMFUTURE"))
    places = {"MAIN": SPOT, "FUNDING": FUNDING}
    source, target = way.split("_")
    coin = h.rng.choice(h.shape.coins)
    units = h.some(places[source], coin)
    if units < 10_000:
        return deposit(h, at)
    name = h.number()
    listed = h.enlist(
        f"transfers {way}", at,
        {"asset": coin.code, "amount": text(units), "type": way, "status": "CONFIRMED",
         "tranId": f"#number {name}", "timestamp": ms(at)},
    )  # fmt: skip
    h.entry(f"transfer:{name}:from", at, places[source], coin, -units, way, listed)
    if target in places:
        h.entry(f"transfer:{name}:to", at, places[target], coin, units, way, listed)


EVENTS = (
    trade, convert, deposit, withdraw, move, dividend, dust, subscribe, interest, redeem, fiat,
    payment, round_trip,
)  # fmt: skip
WEIGHTS = (30, 5, 12, 8, 8, 5, 2, 7, 9, 5, 4, 4, 8)
