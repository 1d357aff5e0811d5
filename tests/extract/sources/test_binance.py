"""No trade of Binance is missed: random accounts, read again and again by the source's own fetch.

The exchange here is one of memory, so that hundreds of readings are made; the twin in the sandbox
has the whole API.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from random import Random
from typing import Any

import duckdb
import pytest
import requests

from extract.core.errors import RateLimited
from extract.core.interval import Interval, iso
from extract.core.source import Fetched, Job
from extract.fetch import landing
from extract.fetch.client import Answer, Client
from extract.ledger.paging import at
from extract.sources import get
from extract.sources.binance import facts, markets
from extract.sources.binance.markets import SETTLE, WEEK, Memory
from extract.testing import _opened
from ledgerhouse.config import Account
from ledgerhouse.load.loader import load
from ledgerhouse.plan import coverage, refresh
from ledgerhouse.warehouse import schema
from sandbox.binance.api import KEY, SECRET
from sandbox.server import serve
from sandbox.world.world import World

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
COINS = "USDT FDUSD BTC ETH BNB SOL ADA XRP DOT LDO".split()
MARKETS = {
    base + quote: (base, quote)
    for quote in ("USDT", "FDUSD", "BTC", "BNB")
    for base in COINS
    if base != quote and (base, quote) != ("USDT", "FDUSD")
}


@dataclass
class Fill:
    symbol: str
    id: int
    time: datetime
    listed_at: datetime
    fee: str


@dataclass
class Exchange:
    """`moves`: (when it shows in the balance, asset, change); `deposits`: (time, listed at, asset)."""

    now: datetime = BEGIN
    fills: list[Fill] = field(default_factory=list)
    moves: list[tuple[datetime, str, int]] = field(default_factory=list)
    deposits: list[tuple[datetime, str]] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)

    def trade(
        self, rng: Random | None, symbol: str, when: datetime, fee: str | None, buys=True
    ) -> None:
        """Listed up to nearly SETTLE later, at times, if there is an `rng`."""
        base, quote = MARKETS[symbol]
        late = SETTLE * 0.99 * rng.random() if rng and rng.random() < 0.4 else timedelta(0)
        number = 1 + sum(1 for one in self.fills if one.symbol == symbol)
        self.fills.append(Fill(symbol, 10 * number, when, when + late, fee or quote))
        way = 1 if buys else -1
        self.moves += [(when, base, 5 * way), (when, quote, -5 * way)]
        if fee:
            self.moves.append((when, fee, -1))

    def deposit(self, asset: str, units: int, when: datetime) -> None:
        self.moves.append((when, asset, units))
        self.deposits.append((when, asset))

    def call(self, method: str, params: dict, key: str, expect: Any, rows: Any = None) -> Answer:
        self.calls.append(params.get("symbol") or method)
        call = next(
            call
            for call in (facts.SYMBOLS, *facts.BINANCE.ledgers, *facts.BINANCE.balances)
            if call.call == method
        )
        found = self._rows(method, params)
        data: Any = found
        for name in reversed(call.rows.split(".") if call.rows else []):
            data = {name: data}
        assert expect(data) is None and at(data, call.rows) == found
        return Answer(200, json.dumps(data), data, self.now, rows=len(found))

    def _rows(self, method: str, params: dict) -> list[dict]:
        if method == "publicGetExchangeInfo":
            return [
                {"symbol": symbol, "status": "TRADING", "baseAsset": base, "quoteAsset": quote}
                for symbol, (base, quote) in MARKETS.items()
            ]
        if method == "privateGetAccount":
            held = dict.fromkeys(COINS, 10**6)
            for when, asset, change in self.moves:
                held[asset] += change if when <= self.now else 0
            return [{"asset": a, "free": str(n), "locked": "0"} for a, n in held.items()]
        if method == "sapiGetCapitalDepositHisrec":
            return [
                {"coin": asset, "insertTime": millis(when), "id": f"{asset}{when}", "amount": "1"}
                for when, asset in self.deposits
                if params["startTime"] <= millis(when) <= params["endTime"] and when <= self.now
            ][: 1000 if not params["offset"] else 0]
        if method != "privateGetMyTrades":
            return []
        found = [
            one
            for one in self.fills
            if one.symbol == params["symbol"]
            and one.id >= int(params["fromId"])
            and one.listed_at <= self.now
        ]
        return [
            {"id": one.id, "time": millis(one.time), "commissionAsset": one.fee,
             "symbol": one.symbol}
            for one in sorted(found, key=lambda one: one.id)[: params["limit"]]
        ]  # fmt: skip


def millis(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


@dataclass
class Reader:
    """The product around the fetch: what is planned, loaded and kept of its states."""

    exchange: Exchange
    states: dict[str, str] = field(default_factory=dict)
    loaded: set[tuple[str, int]] = field(default_factory=set)
    end: datetime = BEGIN

    def sync(self, end: datetime | None = None, knows: bool = True) -> Fetched:
        end = end or self.exchange.now
        start = self.end if knows and self.states else BEGIN
        begin = max(BEGIN, start - SETTLE)
        known = self.states if knows else {}
        job = Job("binance", "main", "b", Interval(start, end), begin, known=dict(known))
        client = Client("binance", "main", rates={}, units={})
        self.exchange.calls.clear()
        fetched = get("binance").fetch(client, self.exchange, job)
        for page in fetched.pages:
            if page.endpoint == facts.MY_TRADES:
                low, high = iso(page.read_from or begin), iso(end)
                for row in json.loads(page.body):
                    when = datetime.fromtimestamp(row["time"] / 1000, UTC)
                    if low <= iso(when) < high:
                        self.loaded.add((row["symbol"], row["id"]))
        self.states |= fetched.part_states
        self.end = end
        return fetched

    def missed(self) -> set[tuple[str, int]]:
        return {
            (one.symbol, one.id) for one in self.exchange.fills if one.time < self.end
        } - self.loaded


def some_trades(rng: Random, exchange: Exchange, span: timedelta, kinds: list[str]) -> None:
    """What happens within a span from now on; at its end it is now."""
    begin = exchange.now
    for part in sorted(rng.random() for _ in range(rng.choice((0, 0, 0, 1, 1, 3)))):
        when = begin + span * part
        when = when.replace(microsecond=when.microsecond // 1000 * 1000)
        symbol, kind = rng.choice(list(MARKETS)), rng.choice(kinds)
        base, quote = MARKETS[symbol]
        if kind == "trade":
            exchange.trade(rng, symbol, when, rng.choice((base, quote, "BNB", None)))
        elif kind == "offset":  # what came in is withdrawn, what was paid is deposited
            exchange.trade(rng, symbol, when, None)
            exchange.deposit(base, -5, when)
            exchange.deposit(quote, 5, when)
        elif kind == "day trade":  # only the quote shows it
            exchange.trade(rng, symbol, when, None)
            exchange.trade(rng, symbol, when, quote, buys=False)
        elif kind == "round trip":  # a stable pair: equal but for a fee, or altogether
            fee = rng.choice(("BNB", None))
            exchange.trade(rng, symbol, when, fee)
            exchange.trade(rng, symbol, when, None, buys=False)
        else:
            exchange.deposit(base, 7, when)
    exchange.now = begin + span


def live(rng: Random, kinds: list[str], reader: Reader, readings: int) -> None:
    for _ in range(readings):
        some_trades(rng, reader.exchange, rng.choice((HOUR, HOUR, 6 * HOUR, 30 * HOUR)), kinds)
        behind = rng.choice((timedelta(0), timedelta(0), 5 * HOUR))
        reader.sync(max(reader.end + HOUR / 2, reader.exchange.now - behind))


def rest(reader: Reader, readings: int, span: timedelta) -> None:
    for _ in range(readings):
        reader.exchange.now += span
        reader.sync()


@pytest.mark.parametrize("seed", range(25))
def test_a_trade_that_shows_in_an_asset_is_read_once_it_is_listed(seed, monkeypatch):
    """Without the weekly round: what moves a balance, or is named beside it, is enough."""
    monkeypatch.setattr(Memory, "_round", lambda self, symbols, passed: ([], ""))
    rng, reader = Random(seed), Reader(Exchange())
    some_trades(rng, reader.exchange, 24 * HOUR, ["trade"])
    live(rng, ["trade", "offset", "day trade", "deposit"], reader, 40)
    rest(reader, 2, SETTLE * 0.6)
    rest(reader, 1, SETTLE)
    assert len(reader.exchange.fills) > 10 and not reader.missed()


@pytest.mark.parametrize("seed", range(25))
def test_a_trade_that_shows_nowhere_is_read_within_a_week(seed):
    rng, reader = Random(seed), Reader(Exchange())
    some_trades(rng, reader.exchange, 24 * HOUR, ["trade"])
    live(rng, ["round trip", "round trip", "trade", "offset"], reader, 25)
    rest(reader, 18, WEEK / 16)
    assert len(reader.exchange.fills) > 10 and not reader.missed()


@pytest.mark.parametrize("seed", range(10))
def test_after_an_end_in_the_past_the_rest_is_read(seed):
    """A backfill, or a refresh: read today, loaded up to a day long gone."""
    rng, reader = Random(seed), Reader(Exchange())
    for _ in range(24):
        some_trades(rng, reader.exchange, 10 * HOUR, ["trade", "day trade"])
    reader.sync(BEGIN + 3 * SETTLE, knows=False)
    assert len(reader.loaded) < len(reader.exchange.fills)
    for end in (BEGIN + 5 * SETTLE, BEGIN + 6 * SETTLE, None):
        reader.exchange.now += 2 * SETTLE  # whatever was listed late is listed, and all is quiet
        reader.sync(end)
    assert not reader.missed()


def test_where_nothing_moves_few_markets_are_asked(monkeypatch):
    monkeypatch.setattr(markets, "LEAST_SHARE", 2)
    exchange = Exchange()
    exchange.trade(None, "ETHBTC", BEGIN, "BNB")
    exchange.now += HOUR
    reader = Reader(exchange)
    reader.sync()
    assert set(MARKETS) <= set(exchange.calls), "the first reading asks every market"
    rest(reader, 2, SETTLE)
    rest(reader, 1, HOUR)
    assert len(set(MARKETS) & set(exchange.calls)) == 2
    exchange.deposit("SOL", 5, exchange.now)
    rest(reader, 1, HOUR)
    asked = set(MARKETS) & set(exchange.calls)
    assert {symbol for symbol in MARKETS if "SOL" in MARKETS[symbol]} <= asked
    assert len(asked) <= 4 + 2


def test_a_refetch_asks_every_market_from_its_first_trade():
    exchange = Exchange()
    exchange.trade(None, "ETHBTC", BEGIN, "BNB")
    exchange.now += 9 * SETTLE
    reader = Reader(exchange)
    reader.sync()
    exchange.fills[0].listed_at = exchange.now
    reader.loaded.clear()
    rest(reader, 1, HOUR)
    assert reader.missed()
    reader.sync(knows=False)
    assert set(MARKETS) <= set(exchange.calls) and not reader.missed()


def test_the_states_say_the_memory_again():
    reader = Reader(Exchange())
    reader.exchange.trade(None, "ETHBTC", BEGIN, "BNB")
    reader.exchange.now += HOUR
    reader.sync()
    assert "trades ETHBTC" in reader.states and "asset BNB" in reader.states
    assert Memory.of(Memory.of(reader.states).states()) == Memory.of(reader.states)


def test_a_market_that_is_gone_is_said_once(monkeypatch, caplog):
    exchange = Exchange()
    exchange.trade(None, "ETHBTC", BEGIN, "BNB")
    exchange.now += HOUR
    reader = Reader(exchange)
    reader.sync()
    monkeypatch.delitem(MARKETS, "ETHBTC")
    for _ in range(3):
        rest(reader, 1, HOUR)
    assert caplog.text.count("ETHBTC is not listed any more") == 1
    assert "ETHBTC" not in exchange.calls


@pytest.mark.parametrize("seed", range(3))
def test_the_twin_is_read_on_and_on_and_each_row_has_its_last_status(seed):
    """Late trades, pending money that is confirmed or fails, and statuses at the end."""
    world, source = World(seed, "2025-01-01T00:00:00Z", mess=True, scale=4), get("binance")
    begin, states, rows = datetime(2025, 1, 1, tzinfo=UTC), {}, {}
    with serve(world, "2025-01-08T00:00:00Z") as url:
        url.app.apis["binance"].lift_limits()
        api = source.connect(host=f"{url}/binance", login=KEY, password=SECRET)
        end = begin
        for day in (8, 9.3, 10, 10.5, 11, 14, 16, 18):
            start, end = end, begin + timedelta(days=day)
            url.clock.set(end)
            # As far back as something is pending still, as the planning has it.
            back = max(begin, start - timedelta(days=2))
            job = Job("binance", "main", "b", Interval(start, end), back, known=dict(states))
            fetched = source.fetch(Client("binance", "main", rates={}, units={}), api, job)
            states |= fetched.part_states
            con = _opened(source, fetched, "main")
            found = con.execute(
                "SELECT entry_id, wallet, asset, amount, is_settled FROM "
                f"({source.mappings['exchanges_ledger']}) WHERE ts < ?",
                [end.replace(tzinfo=None)],
            ).fetchall()
            rows |= {row[0]: row[1:] for row in found}
        truth = world.grown("binance", end).truths()["ledger"](int(end.timestamp()))
    want = {
        row["entry_id"]: (row["wallet"], row["token"], Decimal(row["amount"]), row["is_settled"])
        for row in truth
    }
    assert rows == want
    assert {settled for *_, settled in want.values()} == {True, False}


def test_the_twin_keeps_its_limit_by_weight():
    with serve(now="2025-01-08T00:00:00Z") as url:
        asked = 0
        while (answer := requests.get(f"{url}/binance/api/v3/exchangeInfo")).status_code == 200:
            asked += 1
            assert answer.headers["x-mbx-used-weight-1m"] == str(20 * asked)
            assert asked <= 600, "a minute may have passed, once"
        assert answer.status_code == 429 and answer.headers["Retry-After"]
        assert answer.json()["code"] == -1003 and asked >= 300
        api = get("binance").connect(host=f"{url}/binance", login=KEY, password=SECRET)
        client = Client("binance", "main", rates={}, units={}, tries=1)
        day = Interval(BEGIN - 400 * SETTLE, BEGIN)
        with pytest.raises(RateLimited):
            get("binance").fetch(client, api, Job("binance", "main", "b", day, day.start))


def test_what_is_loaded_sync_after_sync_is_the_truth(tmp_path):
    """Planned, landed and loaded as the product does it, with balances; then once more in full."""
    world, source = World(5, "2025-01-01T00:00:00Z", mess=True, scale=4), get("binance")
    con, account = duckdb.connect(), Account("binance", "main", "binance_main")
    schema.create_all(con)
    sources, begin = {"binance": source}, datetime(2025, 1, 1, tzinfo=UTC)

    def fetch_and_load(jobs: list[Job]) -> None:
        for job in jobs:
            fetched = source.fetch(Client("binance", "main", rates={}, units={}), api, job)
            landing.write(tmp_path, job, fetched, {"run_id": "r"})
        load(con, tmp_path, sources)

    def rows() -> dict[str, tuple]:
        found = con.execute(
            "SELECT entry_id, wallet, asset, amount, is_settled FROM raw.exchanges_ledger "
            "WHERE vanished_at IS NULL"
        ).fetchall()
        return {row[0]: row[1:] for row in found}

    with serve(world, "2025-01-05T00:00:00Z") as url:
        url.app.apis["binance"].lift_limits()
        api = source.connect(host=f"{url}/binance", login=KEY, password=SECRET)
        for day in (4, 5, 5.5, 7, 9, 9.2, 12):
            end = begin + timedelta(days=day)
            url.clock.set(end)
            jobs = coverage.jobs(con, sources, [account], Interval(begin, end), snapshot=True)
            assert bool(jobs[0].known) == (day > 4), "what is known comes back"
            fetch_and_load(jobs)
        truth = world.grown("binance", end).truths()["ledger"](int(end.timestamp()))
        want = {
            row["entry_id"]: (row["wallet"], row["token"], Decimal(row["amount"]), row["is_settled"])
            for row in truth
        }  # fmt: skip
        assert rows() == want
        held = con.execute(
            "SELECT wallet, token, amount FROM raw.balances WHERE amount <> 0 AND ts = "
            "(SELECT max(ts) FROM raw.balances)"
        ).fetchall()
        assert {(wallet, token): amount for wallet, token, amount in held} == {
            (wallet, coin.code): Decimal(units).scaleb(-8)
            for (wallet, coin), units in world.grown("binance", end)
            .balances_at(int(end.timestamp()))
            .items()
            if units
        }
        fetch_and_load(refresh.jobs(con, sources, [account], refresh.FULL))
        assert rows() == want, "a refresh finds nothing new, and nothing has vanished"


def test_a_market_without_trades_to_ask_for_is_passed_over(monkeypatch, caplog):
    """Listed, but refused: -1121. Everything else is read."""
    from sandbox.binance.api import BinanceApi

    info = BinanceApi.info

    def more(self, asked, now):
        answer = info(self, asked, now)
        other = {"symbol": "XXXYYY", "status": "BREAK", "baseAsset": "XXX", "quoteAsset": "YYY"}
        return answer | {"symbols": [*answer["symbols"], other]}

    monkeypatch.setattr(BinanceApi, "info", more)
    with serve(now="2025-01-08T00:00:00Z") as url:
        url.app.apis["binance"].lift_limits()
        api = get("binance").connect(host=f"{url}/binance", login=KEY, password=SECRET)
        span = Interval("2025-01-01", "2025-01-08")
        client = Client("binance", "main", rates={}, units={}, tries=1)
        fetched = get("binance").fetch(client, api, Job("binance", "main", "b", span, span.start))
    assert "XXXYYY is listed" in caplog.text
    assert any(page.endpoint == facts.MY_TRADES for page in fetched.pages)
