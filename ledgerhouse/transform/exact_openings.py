"""Exact openings: what a wallet held before its first entry, by that entry's own running balance.

Its balance less its change, booked where the history begins (the covered stretch that holds the
entry): no snapshot is needed, and START_TS may be anywhere. The load keeps them
(ops.running_balances): an opening stays as it is until entries of before are loaded.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING

from extract.core.interval import iso
from ledgerhouse.transform.residuals import Owner, Token

if TYPE_CHECKING:
    import duckdb

# Only of wallets whose balances are known to follow from what the books count.
OPENINGS = """
    SELECT r.source, r.account, r.token, r.wallet, c.start_ts, r.opening_text, r.opening_ref,
        r.first_ts, r.opening_file
    FROM ops.running_balances r JOIN ops.covered_spans c
        ON c.source = r.source AND c.account = r.account AND c.dataset = 'exchanges_ledger'
        AND r.first_ts >= c.start_ts AND r.first_ts < c.end_ts
    WHERE r.status = 'proven' AND r.convention = 'amount' AND r.opening_text IS NOT NULL
    ORDER BY ALL"""
# What is held in no wallet needs no opening there.
HELD = """
    SELECT token, list(DISTINCT wallet) FROM raw.balances
    WHERE (source, account, ts) = (?, ?, ?) AND amount IS DISTINCT FROM 0 GROUP BY ALL"""


@dataclass(frozen=True)
class Opening:
    """What a wallet held of a token before its first entry, from `since` on."""

    wallet: str
    since: datetime
    amount: Decimal
    evidence: str


@dataclass(frozen=True)
class ExactOpenings:
    """Those of every account, those of nothing too."""

    by_token: Mapping[Token, list[Opening]] = field(default_factory=dict)

    @classmethod
    def read(cls, con: duckdb.DuckDBPyConnection) -> ExactOpenings:
        found: dict[Token, list[Opening]] = defaultdict(list)
        for source, account, token, wallet, since, text, ref, ts, file in con.execute(
            OPENINGS
        ).fetchall():
            evidence = f"running balance of entry {ref} of {iso(ts)}"
            evidence += f" in {file}" if file else ""
            found[source, account, token].append(Opening(wallet, since, Decimal(text), evidence))
        return cls(found)

    def left(
        self,
        con: duckdb.DuckDBPyConnection,
        who: Owner,
        ts: datetime,
        totals: Mapping[str, Decimal],
    ) -> dict[str, Decimal]:
        """Of the openings of an account by token, which its snapshot at `ts` says: what lies in
        wallets that have none of these."""
        if not any(token[:2] == who for token in self.by_token):
            return dict(totals)
        held = dict(con.execute(HELD, [*who, ts]).fetchall())
        left = {}
        for token, total in totals.items():
            known = self.by_token.get((*who, token), [])
            if known and _covers(known, held.get(token) or ()):
                continue
            rest = total - sum((opening.amount for opening in known), Decimal(0))
            if rest > 0:
                left[token] = rest
        return left


def _covers(known: Collection[Opening], wallets: Collection[str]) -> bool:
    return set(wallets) <= {opening.wallet for opening in known}
