"""The world of the sandbox: the whole history as of any moment, and the truth about it."""

from __future__ import annotations

from collections.abc import Iterable
from random import Random
from threading import Lock
from typing import Any

from sandbox.vendor import EVERYTHING, History, Plan
from sandbox.vendors import all_vendors
from sandbox.world.moments import Moment, ceil_seconds, iso, seconds

GENESIS = "2024-11-01T00:00:00Z"


class World:
    """Deterministic from (seed, start, scale, late_days, mess); a later `now` only adds to it, and
    only `vanish` takes anything away. `mess` makes it as odd as life; without it, reported balances
    are the sums of visible rows. `books_start` is when books of it begin, later than `start` for
    accounts that are older than their books; None: with the history. `options` are those of the
    vendors' histories, by the names in their `history_options`.

    `histories[name]` is a vendor's part of it, `grown(name, now)` the same, ready to be asked about
    `now`. Truths of one name are one list of all vendors that have it, a vendor after the other.

    Moments are ISO text, aware datetimes or whole seconds. A row exists from `visible_at`, always
    later than its own time; statuses, categories and legs are those of `now`. All amounts in the
    truth are exact decimal text, all times ISO text:

    - `ledger(now)`: rows of exchanges, `amount` signed, network fee included; only is_settled counts.
    - `fills(now)`: their fills; `amount` in base coins, `wire_amount` the size as in the response.
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
      Of an exchange there is one for each currency of its wallets, whose chain is None.
    - `unread_wallets(now)`: {vendor, account, wallet, token, status} of exchange wallets whose
      transactions answer with an error for good.
    - `unread(now)`: {account, chain, time, rows} of seconds that no walk can leave.
    - `positions(now)`: {account, chain, project, pool, token, amount} that lie in protocols.

    `vendors`: of these only; None: of all.
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
        **options: Any,
    ) -> None:
        self.seed, self.start, self.scale, self.late_days = seed, seconds(start), scale, late_days
        self.mess = mess
        self.books_start = self.start if books_start is None else seconds(books_start)
        plan = Plan(seed, self.start, scale, late_days, mess, self.books_start)
        self.vendors = all_vendors()
        self.histories: dict[str, History] = {
            name: vendor.history(
                plan, **{o: options.pop(o) for o in vendor.history_options if o in options}
            )
            for name, vendor in self.vendors.items()
        }
        if options:
            raise TypeError(f"no vendor's history has the options {', '.join(options)}")
        self._asked = self.start - 1  # the latest moment that anybody asked about
        self._growing = Lock()

    def grow(self, now: Moment) -> None:
        """Generate the history of every vendor up to `now`."""
        for name in self.histories:
            self.grown(name, now)

    def grown(self, vendor: str, now: Moment | None = None) -> Any:
        """The history of a vendor, generated up to `now`; the others wait until they are asked."""
        with self._growing:  # a test may ask while the server answers
            if now is not None:
                self._asked = max(self._asked, seconds(now))
            self.histories[vendor].grow(self._asked if now is None else seconds(now))
        return self.histories[vendor]

    def vanish(
        self, at: Moment, vendor: str, rng: Random, since: Moment | None = None
    ) -> dict | None:
        """One row of the vendor's, drawn by `rng`, is gone from `at` on: from histories and balances.

        Drawn among those listed a second before, with time >= `since`, that nothing else leans
        on. Returns the truth about it as it last stood, or None where there is no such row.
        """
        first = -EVERYTHING if since is None else seconds(since)
        return self.grown(vendor, at).vanish(seconds(at), rng, first)

    # The truth.

    def truth(
        self, name: str, now: Moment | None = None, vendors: Iterable[str] | None = None
    ) -> list[dict]:
        """The rows of this name, of those vendors that have some."""
        moment, rows = EVERYTHING if now is None else seconds(now), []
        for each in vendors or self.histories:
            if name in self.histories[each].truths():
                rows += self.grown(each, now).truths()[name](moment)
        return rows

    def ledger(self, now: Moment | None = None, vendors: Iterable[str] | None = None) -> list[dict]:
        return self.truth("ledger", now, vendors)

    def fills(self, now: Moment | None = None, vendors: Iterable[str] | None = None) -> list[dict]:
        return self.truth("fills", now, vendors)

    def transactions(self, now: Moment | None = None) -> list[dict]:
        return self.truth("transactions", now)

    def transfers(self, now: Moment | None = None) -> list[dict]:
        return self.truth("transfers", now)

    def unread_wallets(self, now: Moment | None = None) -> list[dict]:
        return self.truth("unread_wallets", now)

    def unread(self, now: Moment | None = None) -> list[dict]:
        return self.truth("unread", now)

    def positions(self, now: Moment | None = None) -> list[dict]:
        return self.truth("positions", now)

    def balances(
        self,
        at: Moment | None = None,
        now: Moment | None = None,
        vendors: Iterable[str] | None = None,
    ) -> list[dict]:
        moment = EVERYTHING if now is None else seconds(now)
        before = EVERYTHING if at is None else ceil_seconds(at)
        return [
            row
            for name in vendors or self.histories
            for row in self.grown(name, now).balances(before, moment)
        ]

    def residuals(
        self,
        at: Moment | None = None,
        now: Moment | None = None,
        since: Moment | None = None,
        vendors: Iterable[str] | None = None,
    ) -> list[dict]:
        """`at` None: `now`; `now` None: `at`, or all generated so far; `since` None: books_start."""
        seen = at if now is None else now
        moment = EVERYTHING if seen is None else seconds(seen)
        instant = moment if at is None else min(ceil_seconds(at), EVERYTHING)
        begin = self.books_start if since is None else seconds(since)
        return [
            row
            for name in vendors or self.histories
            for row in self.grown(name, seen).residuals(instant, moment, begin)
        ]

    def summary(self, now: Moment) -> dict:
        """How much there is of the vendors in the demo, for the first line of a log."""
        counts: dict[str, int] = {}
        for name in (name for name, vendor in self.vendors.items() if vendor.in_demo):
            for what, count in self.grown(name, now).summary(seconds(now)).items():
                counts[what] = counts.get(what, 0) + count
        return {
            "seed": self.seed,
            "start": iso(self.start),
            "books_start": iso(self.books_start),
            "mess": self.mess,
            "scale": self.scale,
            "late_days": self.late_days,
            **counts,
        }
