"""Which markets are asked for their trades, and why no trade is missed.

Trades are listed by market only, there are some thousand markets, and a call is dear. So a fetch
asks the markets where something can have happened since the reading before:

1. Without a memory of a reading (the first fetch, a refetch, a refresh, a range that was never
   read) every listed market is asked from its first trade on.
2. A trade moves what spot holds of its base, its quote and the asset of its fee. A market that was
   ever traded is asked where the total (spot and funding) of one of these changed since, or where
   another list names one of these: so a trade whose effect was withdrawn, deposited, converted,
   moved or put to earn in between shows as well.
3. A market that was never traded is asked where its base or quote changed or was named: one of the
   two is enough, so a coin that was bought and sold again between two readings shows by its quote.
   A fee cannot be assigned to a market, so it says nothing here.
4. Totals are read before any trade. A trade that happens later changes them at the next reading.
   They may be ahead of the trades: after a change a traded market is asked at every reading until
   one SETTLE or more after it; any other at that reading, at the next, and at the first SETTLE
   after it. Totals that are behind change later, and are a change then.
5. A market is asked from behind its last trade that was older than SETTLE, and before the end of
   the job's interval, at its last reading: what is listed late, with an id below others, is not
   passed; and such a market is asked again until it has no trade that young.
6. What leaves all of this as it was is a round trip in a market without a fee, or one in a new market
   with the fee in a third coin. For these every listed market is asked once a WEEK, whatever
   happened, in equal shares of the fetches.

So a trade that is listed within SETTLE of its effect on the balances is read: at once by 2 and 3, or
within a week by 6. One that is listed later is found by the refresh, which asks for everything.
Interest moves what earn holds all day, and no trade does: earn counts by its lists, not its total.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from math import ceil

from extract.core.interval import iso, utc

SETTLE = timedelta(hours=24)
WEEK = timedelta(days=7)
LEAST_SHARE = 25  # markets of the weekly round, at least, in a fetch
FEE_COIN = "BNB"


@dataclass(frozen=True)
class Market:
    """A listed market; `trading`: orders can be filled now."""

    base: str
    quote: str
    trading: bool = True


@dataclass(frozen=True)
class Traded:
    """A market with trades: the id from which it is asked, and whether its newest are so young that
    it is asked again."""

    base: str
    quote: str
    next_id: int
    young: bool = False
    fees: tuple[str, ...] = (FEE_COIN,)

    def assets(self) -> set[str]:
        return {self.base, self.quote, *self.fees}


@dataclass(frozen=True)
class Trade:
    """What of a trade decides whether its market is asked again."""

    id: int
    time: datetime
    fee: str


@dataclass(frozen=True)
class Memory:
    """What a reading leaves for the next: {asset: (total, when it moved last)}, {symbol: Traded}.

    `read_at` is when totals were read, None where nothing is known; `since`: trades before it are
    not in the books; `swept` is the last market of the weekly round that was asked.
    """

    read_at: datetime | None = None
    since: datetime | None = None
    swept: str = ""
    assets: Mapping[str, tuple[str, datetime]] = field(default_factory=dict)
    traded: Mapping[str, Traded] = field(default_factory=dict)

    @classmethod
    def of(cls, states: Mapping[str, str]) -> Memory:
        """The memory in the texts of Fetched.part_states; an empty one where there is none."""
        if "reading" not in states:
            return cls()
        reading = json.loads(states["reading"])
        assets, traded = {}, {}
        for part, text in states.items():
            kind, _, name = part.partition(" ")
            if kind == "asset":
                total, moved_at = text.split()
                assets[name] = (total, utc(moved_at))
            elif kind == "trades":
                said = json.loads(text)
                traded[name] = Traded(**{**said, "fees": tuple(said["fees"])})
        return cls(utc(reading["read_at"]), utc(reading["since"]), reading["swept"], assets, traded)

    def states(self) -> dict[str, str]:
        """The texts of Fetched.part_states."""
        assert self.read_at and self.since
        reading = {"read_at": iso(self.read_at), "since": iso(self.since), "swept": self.swept}
        return {
            "reading": json.dumps(reading),
            **{
                f"asset {name}": f"{total} {iso(moved_at)}"
                for name, (total, moved_at) in self.assets.items()
            },
            **{
                f"trades {symbol}": json.dumps(vars(one) | {"fees": list(one.fees)})
                for symbol, one in self.traded.items()
            },
        }

    def moved(
        self, totals: Mapping[str, str], named: Mapping[str, datetime], now: datetime
    ) -> Memory:
        """The memory with the totals that were read at `now`; `named` is when other lists say that
        an asset was moved last."""
        assets = {}
        for name in {*self.assets, *totals, *named}:
            total, (before, moved_at) = totals.get(name, "0"), self.assets.get(name, ("0", None))
            moments = [now] if total != before else [moved_at] if moved_at else []
            if name in named:
                moments.append(min(named[name], now))
            if moments:
                assets[name] = (total, max(moments))
        return replace(self, assets=assets)

    def due(
        self, markets: Mapping[str, Market], now: datetime, settle: timedelta = SETTLE
    ) -> tuple[list[str], str]:
        """The markets to ask, with the memory that `moved` has brought up to date, and the last
        one of the weekly round."""
        if self.read_at is None:
            return sorted(markets), ""
        last = self.read_at
        unsettled, fresh = set(), set()
        for name, (_, moved_at) in self.assets.items():
            if last < moved_at + settle:
                unsettled.add(name)
                if moved_at >= last or moved_at + settle <= now:
                    fresh.add(name)
        round_, swept = self._round(sorted(markets), now - last)
        asked = set(round_)
        for symbol, market in markets.items():
            traded = self.traded.get(symbol)
            if traded:
                if traded.young or traded.assets() & unsettled:
                    asked.add(symbol)
            elif market.trading and {market.base, market.quote} & fresh:
                asked.add(symbol)
        return sorted(asked), swept

    def _round(self, symbols: list[str], passed: timedelta) -> tuple[list[str], str]:
        """The share of the weekly round that is due, behind the last market that was asked."""
        share = min(len(symbols), max(LEAST_SHARE, ceil(len(symbols) * (passed / WEEK))))
        place = sum(symbol <= self.swept for symbol in symbols)
        chosen = (symbols[place:] + symbols[:place])[:share]
        return chosen, chosen[-1] if chosen else self.swept


def settled(
    before: Traded | None, market: Market, trades: Iterable[Trade], cutoff: datetime
) -> Traded | None:
    """What is known of a market after it was read; `cutoff`: a trade from then on is young. None
    where it has no trades."""
    ordered = sorted(trades, key=lambda trade: trade.id)
    if not ordered:
        return replace(before, young=False) if before else None
    old = [trade.id for trade in ordered if trade.time < cutoff]
    passed = old[-1] + 1 if old else before.next_id if before else 0
    fees = {trade.fee for trade in ordered} - {market.base, market.quote, ""}
    return Traded(
        market.base,
        market.quote,
        passed,
        len(old) < len(ordered),
        tuple(sorted({*(before.fees if before else (FEE_COIN,)), *fees})),
    )
