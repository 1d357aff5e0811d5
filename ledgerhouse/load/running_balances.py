"""Running balances: the chain law at every load, over the rows that the load has touched.

    check_running_balances(con, batch_id, loaded_at) -> int    breaks that are new

Part of the loader's transaction. Of each (account, wallet, asset) with touched rows the groups from
the one before them to the one after them are compared, whatever the length of the history (see
ledgerhouse.load.chain_law). A wallet is judged as a whole until its first rows have proven what
its balances follow (`ops.running_balances`): `amount`, as they should; `amount` with the fee taken
off or added, which is a break of suspect fee_convention; or nothing at all: then they are no running
balances, and are not used. What a proven wallet breaks later is in `ops.chain_breaks` until a later
load heals it. Two groups between which the history has a gap are compared when that is filled
(`ops.chain_gaps`). Rows that are not settled or have vanished are not in the chain.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING

from extract.core.interval import closed, joined
from ledgerhouse.load.chain_entries import ChainEntries, Key, entry
from ledgerhouse.load.chain_law import Chain, ChainBreak, Instant, follow
from ledgerhouse.load.chain_records import ChainRecords, Judged, State
from ledgerhouse.load.chain_suspects import CONVENTIONS, Entry, Finding, name
from ledgerhouse.load.covered import Covered

if TYPE_CHECKING:
    import duckdb

log = logging.getLogger(__name__)

DECLARED, *OTHERS = CONVENTIONS
PROVEN, UNDECIDED, NONE = "proven", "undecided", "no running balance"
ENOUGH = 3  # links that must not hold before a wallet's balances are given up
MOST_SPANS = 32
MOST_NAMED = 200  # breaks of a load whose suspect is looked for

TOUCHED = """
    CREATE OR REPLACE TEMP TABLE touched_chains AS
    SELECT n.source, n.account, coalesce(n.wallet, '') AS wallet, n.asset AS token, n.ts,
           n.balance_text IS NOT NULL AS says
    FROM verdict_exchanges_ledger v JOIN incoming_exchanges_ledger n
        USING (source, account, entry_id)
    WHERE v.verdict IN ('new', 'changed') AND n.asset IS NOT NULL
    UNION ALL
    SELECT source, account, coalesce(wallet, ''), asset, ts, balance_text IS NOT NULL
    FROM old_exchanges_ledger WHERE asset IS NOT NULL"""


def check_running_balances(
    con: duckdb.DuckDBPyConnection, batch_id: str, loaded_at: datetime
) -> int:
    """Judge the chains that the batch has touched, by its temporary tables (ledgerhouse.load.merge)
    and the coverage there is now; returns how many breaks are new."""
    accounts = con.execute(
        "SELECT DISTINCT h.source, h.account FROM headers h WHERE EXISTS (FROM "
        "mapped_exchanges_ledger WHERE balance_text IS NOT NULL) OR EXISTS (FROM "
        "ops.running_balances b WHERE (b.source, b.account) = (h.source, h.account)) ORDER BY ALL"
    ).fetchall()
    if not accounts:
        return 0
    con.execute(TOUCHED)
    return sum(_Account(con, who, batch_id, loaded_at).check() for who in accounts)


class _Account:
    """The chains of one account."""

    def __init__(self, con, who: tuple[str, str], batch_id: str, loaded_at: datetime):
        self.con, self.who = con, {"source": who[0], "account": who[1]}
        self.entries = ChainEntries(con, *who)
        self.records = ChainRecords(con, *who, batch_id, loaded_at)
        self.covered = Covered(con, *who)
        self.named = 0

    def check(self) -> int:
        self.states = self.records.states()
        status = {wallet: state.status for (wallet, _), state in self.states.items()}
        self._touch_filled_gaps()
        touched = self.entries.rows(
            "SELECT wallet, bool_or(says), min(ts) FROM touched_chains WHERE source = $source "
            "AND account = $account GROUP BY ALL ORDER BY ALL"
        )
        proven = [wallet for wallet, *_ in touched if status.get(wallet) == PROVEN]
        others = [
            wallet
            for wallet, says, _ in touched
            if status.get(wallet) == UNDECIDED or (says and wallet not in status)
        ]
        new = self._judge_whole(others) if others else 0
        for lo, hi in self._spans(proven) if proven else ():
            new += self._judge_span(proven, lo, hi)
        return new

    def _touch_filled_gaps(self) -> None:
        """What could not be compared, and can be now, is touched."""
        for wallet, token, after, ts in self.records.gaps():
            if self.covered.is_whole(wallet, after, ts):
                self.con.execute(
                    "INSERT INTO touched_chains VALUES (?, ?, ?, ?, ?, true)",
                    [*self.who.values(), wallet, token, ts],
                )

    def _spans(self, wallets: Sequence[str]) -> list[tuple[datetime, datetime]]:
        """The touched days of these wallets as spans [start, end)."""
        days = self.entries.rows(
            "SELECT DISTINCT ts::DATE::TIMESTAMP FROM touched_chains WHERE source = $source "
            "AND account = $account AND list_contains($wallets, wallet)",
            wallets=wallets,
        )
        day = timedelta(days=1)
        spans = joined((first, first + 2 * day) for (first,) in days)
        return closed(spans, len(spans) - MOST_SPANS)

    # --- wallets that are not decided: every row of theirs ---------------------------------------

    def _judge_whole(self, wallets: Sequence[str]) -> int:
        new = 0
        for wallet, rows in groupby(self.entries.of_wallets(wallets), key=itemgetter(0)):
            chains = {
                token: [entry(row) for row in each]
                for token, each in groupby(rows, key=itemgetter(1))
            }
            new += self._decide(wallet, chains)
        return new

    def _decide(self, wallet: str, chains: Mapping[str, Sequence[Entry]]) -> int:
        """Judge a wallet by all its rows, and write it down."""
        by = {DECLARED: self._follow_all(wallet, chains, DECLARED)}
        links = sum(chain.links for chain in by[DECLARED].values())
        held = {DECLARED: sum(chain.held for chain in by[DECLARED].values())}
        if held[DECLARED] < links:
            for convention in OTHERS:
                by[convention] = self._follow_all(wallet, chains, convention)
                held[convention] = sum(chain.held for chain in by[convention].values())
        best = max(
            held, key=lambda convention: held[convention]
        )  # the declared where all are alike
        if links and held[best] * 2 > links:
            status = PROVEN
        elif links >= ENOUGH or self._never_moves(chains, links):
            status, best = NONE, DECLARED
            log.warning(
                "%s %s, wallet %s: no running balance: of %d balances that its entries state, %d "
                "follow from the one before, whatever the fee does. They are not used",
                *self.who.values(),
                wallet,
                links,
                held[DECLARED],
            )
        else:
            status = UNDECIDED
        judged = []
        for token, chain in by[best].items():
            state = self._begun(chain, status, best)
            one = Judged((wallet, token), chains[token][0].ts, None, state)
            if status == PROVEN:
                one.found = self._named((wallet, token), chain.breaks)
                one.gaps = chain.gaps
                if best != DECLARED and by[DECLARED][token].breaks:
                    broken = by[DECLARED][token].breaks[0]
                    one.found.insert(0, (broken, _convention(broken, best, held, links)))
            judged.append(one)
        return self.records.write(judged)

    def _follow_all(
        self, wallet: str, chains: Mapping[str, Sequence[Entry]], convention: str
    ) -> dict[str, Chain]:
        return {
            token: follow((e.running(convention) for e in rows), None, self._is_whole(wallet))
            for token, rows in chains.items()
        }

    def _never_moves(self, chains: Mapping[str, Sequence[Entry]], links: int) -> bool:
        """Whether the entries state one and the same balance, although they move it."""
        return bool(links) and all(
            len({entry.balance for entry in rows}) == 1 and all(entry.amount for entry in rows)
            for rows in chains.values()
        )

    def _begun(self, chain: Chain, status: str, convention: str) -> State:
        assert chain.first and chain.last_ts
        ts, ref = chain.first
        return State(
            status,
            convention,
            ts,
            None if status == NONE else chain.opening,
            ref,
            self.records.file(ts),
            chain.last_ts,
            _only(chain.last),
        )

    # --- wallets that are proven: what was touched, and its neighbours ---------------------------

    def _judge_span(self, wallets: Sequence[str], lo: datetime, hi: datetime) -> int:
        bounds = {
            (wallet, token): (first, last)
            for wallet, token, first, last in self.entries.rows(
                "SELECT wallet, token, min(ts), max(ts) FROM touched_chains WHERE source = $source "
                "AND account = $account AND list_contains($wallets, wallet) AND ts >= $lo "
                "AND ts < $hi GROUP BY ALL",
                wallets=wallets,
                lo=lo,
                hi=hi,
            )
        }
        rows: dict[Key, list[Entry]] = {key: [] for key in bounds}
        first, last = min(b for b, _ in bounds.values()), max(e for _, e in bounds.values())
        for row in self.entries.between(bounds, first, last):
            key, one = (row[0], row[1]), entry(row)
            if bounds[key][0] <= one.ts <= bounds[key][1]:
                rows[key].append(one)
        # Of a chain that ends before them, the end is known.
        inside = {k: s for k, s in self.states.items() if k in bounds}
        back = {k: b for k, (b, _) in bounds.items() if k in inside and inside[k].first_ts < b}
        back = {k: edge for k, edge in back.items() if inside[k].last_ts >= edge}
        ahead = {k: e for k, (_, e) in bounds.items() if k in inside and inside[k].last_ts > e}
        before = self.entries.neighbours(
            back, -1, min((inside[k].first_ts for k in back), default=lo)
        )
        after = self.entries.neighbours(
            ahead, 1, max((inside[k].last_ts for k in ahead), default=hi)
        )
        judged = [
            self._judge(key, *bounds[key], rows[key], before.get(key, []), after.get(key, []))
            for key in bounds
        ]
        for one in judged:
            if one.state:
                self.states[one.key] = one.state
            else:
                self.states.pop(one.key, None)
        return self.records.write(judged)

    def _judge(
        self,
        key: Key,
        lo: datetime,
        hi: datetime,
        rows: Sequence[Entry],
        before: Sequence[Entry],
        after: Sequence[Entry],
    ) -> Judged:
        """A chain of a proven wallet, whose rows in [lo, hi] were touched."""
        old = self.states.get(key)
        every = [*before, *rows, *after]
        convention = old.convention if old else self._convention(key[0])
        known: Instant | None = None
        if old and not before:
            if old.last_ts < lo:
                known = old.end
            elif every and every[0].ts > old.first_ts and old.opening is not None:
                # Its first rows are gone: what was held before them is not what they say any more.
                known = old.first_ts, frozenset((old.opening,))
        chain = follow((e.running(convention) for e in every), known, self._is_whole(key[0]))
        breaks = [b for b in chain.breaks if b.ts >= lo]
        gaps = [(then, ts) for then, ts in chain.gaps if ts >= lo]
        state = old
        if not chain.last_ts and old and old.last_ts >= lo:  # nothing of it is left
            state = replace(old, last_ts=old.first_ts, last=old.opening)
        elif chain.last_ts and (old is None or not before and known is None):
            state = self._begun(chain, PROVEN, convention)
            if after and old:
                state = replace(state, last_ts=old.last_ts, last=old.last)
        elif chain.last_ts and old and not after:
            state = replace(old, last_ts=chain.last_ts, last=_only(chain.last))
        until = after[0].ts if after else None
        return Judged(key, lo, until, state, self._named(key, breaks), gaps)

    def _convention(self, wallet: str) -> str:
        return next(s.convention for (w, _), s in self.states.items() if w == wallet)

    def _is_whole(self, wallet: str):
        return lambda after, ts: self.covered.is_whole(wallet, after, ts)

    def _named(self, key: Key, breaks: Sequence[ChainBreak]) -> list[tuple[ChainBreak, Finding]]:
        """Breaks with their suspects; of very many, the first ones."""
        found = []
        for number, broken in enumerate(breaks):
            near: list[Entry] = []
            starts: frozenset[Decimal] = frozenset()
            if self.named < MOST_NAMED:
                self.named += 1
                near, starts = self.entries.around(key, broken)
            following = breaks[number + 1] if number + 1 < len(breaks) else None
            if not near:
                near = [
                    Entry(broken.ts, ref, None, Decimal(0), None) for ref in sorted(broken.refs)
                ]
            found.append((broken, name(broken, near, following, starts)))
        return found


def _convention(broken: ChainBreak, best: str, held: Mapping[str, int], links: int) -> Finding:
    words = (
        f"the balances follow with change = {best} ({held[best]} of {links}) and not with amount "
        f"({held[DECLARED]}): the source's mapping is wrong about fees"
    )
    return Finding(min(broken.refs), broken.missing, "fee_convention", None, words)


def _only(values: frozenset[Decimal]) -> Decimal | None:
    return next(iter(values)) if len(values) == 1 else None
