"""The fetch of a Binance account: totals first, then its lists, then the markets that are due.

The order matters: see extract.sources.binance.markets, which says why no trade is missed.
"""

from __future__ import annotations

import json
import logging
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Context, Decimal, localcontext
from typing import Any

from extract.core.errors import Fatal
from extract.core.interval import Interval
from extract.core.source import Covered, Fetched, Job, Page
from extract.fetch.client import WORKERS, Client
from extract.fetch.http import CcxtClients
from extract.ledger.facts import Balances, Exchange, Ledger
from extract.ledger.moments import moment_of
from extract.ledger.paging import at
from extract.ledger.walk import Walk, pages_of, read_balances, read_windows, report_unknown
from extract.sources.binance.facts import ACCOUNT, FUNDING, LISTS, SYMBOLS, TRADES
from extract.sources.binance.markets import SETTLE, Market, Memory, Trade, Traded, settled

log = logging.getLogger(__name__)
ASSETS = "coin asset fromAsset toAsset targetAsset fiatCurrency cryptoCurrency".split()


@dataclass(eq=False)
class Reading:
    """What a fetch knows: the totals of its beginning, the markets, and what it will leave."""

    walk: Walk
    now: datetime
    memory: Memory
    markets: Mapping[str, Market]
    cutoff: datetime

    def read(self, symbol: str) -> None:
        """All trades of a market from where it was read to."""
        walk, market = self.walk, self.markets[symbol]
        before = self.memory.traded.get(symbol)
        params = {"symbol": symbol, "fromId": str(before.next_id if before else 0)}
        trades, pages = [], []
        kept = {"base": market.base, "quote": market.quote}
        for answer, asked, _ in pages_of(walk, TRADES, params):
            report_unknown(walk, TRADES, answer.data)
            trades += [_trade(row) for row in answer.data]
            if answer.data:
                pages.append(
                    Page(
                        TRADES.endpoint,
                        {**asked, **kept},
                        answer.body,
                        answer.received_at,
                        read_from=self.memory.since,
                    )
                )
        known = settled(before, market, trades, self.cutoff)
        with walk.lock:
            walk.got.pages += pages
            if known:
                walk.got.part_states |= Memory(self.now, self.now, traded={symbol: known}).states()


def fetch(exchange: Exchange, client: Client, api: CcxtClients, job: Job) -> Fetched:
    """Balances, every list over the job, and the trades of the markets that are due.

    Raises Fatal for a wrong key or an interval to come, Retriable when trouble outlasts the
    retries.
    """
    walk = Walk(exchange, client, api, job)
    read_balances(walk)
    now, totals = walk.clocks[0], _totals(walk.got.pages)
    if not job.snapshot:
        walk.got = Fetched()
    read_windows(walk, LISTS)
    markets = _markets(walk)
    settle = max(SETTLE, job.interval.start - job.read_from)
    memory = Memory.of(job.known).moved(totals, _named(walk), now)
    asked, swept = memory.due(markets, now, settle)
    gone = _close_gone(walk, memory, markets)
    reading = Reading(walk, now, memory, markets, min(now - settle, job.interval.end))
    _read_trades(reading, asked)
    left = replace(
        memory, read_at=now, since=memory.since or job.read_from, swept=swept, traded=gone
    )
    walk.got.part_states |= left.states()
    walk.got.pages += [page for window in walk.windows for page in window.pages]
    whole = Interval(job.read_from, min(job.interval.end, *walk.clocks))
    for dataset in ("exchanges_ledger", "exchanges_trades"):
        reason = f"every list to its end, and {len(asked)} of {len(markets)} markets"
        # Trades that were read before are not listed again, so none of them is missed here.
        walk.got.covered.append(Covered(dataset, whole, reason, parts=()))
    return walk.got


def _read_trades(reading: Reading, symbols: list[str]) -> None:
    """The trades of the markets, several at a time. One that is unknown to the exchange after all
    is passed over, and said."""
    queue = deque(symbols)

    def worker(_: None, fork: Callable[[Any], bool]) -> None:
        while queue:
            try:
                symbol = queue.popleft()
            except IndexError:  # another thread was faster
                return
            if queue:
                fork(None)
            try:
                reading.read(symbol)
            except Fatal as error:
                if "-1121" not in str(error):
                    raise
                log.warning("binance: %s is listed, but it has no trades to ask for", symbol)

    reading.walk.client.run_concurrently(worker, None, WORKERS)


def _trade(row: Mapping[str, Any]) -> Trade:
    time = moment_of(row["time"], "ms")
    if time is None:
        raise ValueError(f"a trade at {row['time']!r}")
    return Trade(int(row["id"]), time, str(row.get("commissionAsset") or ""))


def _totals(pages: list[Page]) -> dict[str, str]:
    """{asset: exact text of what spot and funding hold of it}, without what holds nothing."""
    totals: dict[str, Decimal] = {}
    with localcontext(Context(prec=100)):
        for page in pages:
            for call in (ACCOUNT, FUNDING):
                if call.endpoint == page.endpoint:
                    _add_held(totals, call, json.loads(page.body, parse_float=Decimal))
        return {asset: f"{total.normalize():f}" for asset, total in totals.items() if total}


def _add_held(totals: dict[str, Decimal], call: Balances, answer: Any) -> None:
    for row in at(answer, call.rows):
        for name in call.amount:
            held = Decimal(row.get(name) or 0)
            totals[row["asset"]] = totals.get(row["asset"], Decimal(0)) + held


def _named(walk: Walk) -> dict[str, datetime]:
    """{asset: when it was moved last} by the lists, rewards apart: these change the total of spot,
    or what earn holds."""
    named: dict[str, datetime] = {}
    for window in walk.windows:
        listing = window.listing
        assert isinstance(listing, Ledger)
        if set(listing.kinds.values()) == {"reward"}:
            continue
        for page in window.pages:
            for row in at(json.loads(page.body), listing.rows):
                time = moment_of(at(row, listing.time[0]), listing.time[1])
                for one in row.get(listing.inner) or [] if listing.inner else [row]:
                    found = {one.get(name) for name in ASSETS} | (
                        {"BNB"} if listing.inner else set()
                    )
                    for asset in found - {None, ""}:
                        if time:
                            named[asset] = max(time, named.get(asset, time))
    return named


def _markets(walk: Walk) -> dict[str, Market]:
    """Every listed market. The answer is long and holds nothing of the account: it is not landed."""
    return {
        row["symbol"]: Market(row["baseAsset"], row["quoteAsset"], row["status"] == "TRADING")
        for answer, _, _ in pages_of(walk, SYMBOLS, {})
        for row in at(answer.data, SYMBOLS.rows)
    }


def _close_gone(walk: Walk, memory: Memory, markets: Mapping[str, Market]) -> dict[str, Traded]:
    """The markets that are not listed any more since they were read: said once."""
    gone = {
        symbol: replace(one, young=False)
        for symbol, one in memory.traded.items()
        if one.young and symbol not in markets
    }
    for symbol in sorted(gone):
        log.warning(
            "binance account %s: %s is not listed any more, so its last trades cannot be read; "
            "import them from the export file",
            walk.job.account,
            symbol,
        )
    return gone
