"""What is written about the chains of an account: their state, breaks, and gaps that are not compared."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from functools import cached_property
from typing import TYPE_CHECKING

from extract.core.interval import iso
from ledgerhouse.load.chain_entries import Key
from ledgerhouse.load.chain_law import ChainBreak, Instant
from ledgerhouse.load.chain_suspects import Finding, plain

if TYPE_CHECKING:
    import duckdb

log = logging.getLogger(__name__)

STATES = """
    SELECT wallet, token, status, convention, first_ts, opening_text, opening_ref, opening_file,
           last_ts, last_text
    FROM ops.running_balances WHERE source = $source AND account = $account"""


@dataclass(frozen=True)
class State:
    """A row of ops.running_balances."""

    status: str
    convention: str
    first_ts: datetime
    opening: Decimal | None
    opening_ref: str
    opening_file: str | None
    last_ts: datetime
    last: Decimal | None

    @property
    def end(self) -> Instant:
        return self.last_ts, frozenset(() if self.last is None else (self.last,))


@dataclass
class Judged:
    """A chain after this load, over [lo, hi]: what is to be written about it."""

    key: Key
    lo: datetime
    hi: datetime | None  # None: to its end
    state: State | None
    found: list[tuple[ChainBreak, Finding]] = field(default_factory=list)
    gaps: Sequence[tuple[datetime, datetime]] = ()


class ChainRecords:
    """The rows of ops.running_balances, ops.chain_breaks and ops.chain_gaps of one account."""

    def __init__(
        self,
        con: duckdb.DuckDBPyConnection,
        source: str,
        account: str,
        batch_id: str,
        loaded_at: datetime,
    ):
        self.con, self.batch_id, self.loaded_at = con, batch_id, loaded_at
        self.who = {"source": source, "account": account}

    def _rows(self, sql: str) -> list[tuple]:
        return self.con.execute(sql, self.who).fetchall()

    def states(self) -> dict[Key, State]:
        return {
            (wallet, token): State(
                status, convention, first, _decimal(opening), ref, file, ts, _decimal(last)
            )
            for wallet, token, status, convention, first, opening, ref, file, ts, last in self._rows(
                STATES
            )
        }

    def gaps(self) -> list[tuple]:
        """(wallet, token, after, ts) of what could not be compared."""
        return self._rows(
            "SELECT wallet, token, after_ts, ts FROM ops.chain_gaps "
            "WHERE source = $source AND account = $account"
        )

    def file(self, ts: datetime) -> str | None:
        """The landed file of this batch that reads an instant."""
        return min((file for file, lo, hi in self._files if lo <= ts < hi), default=None)

    @cached_property
    def _files(self) -> list[tuple[str, datetime, datetime]]:
        return self._rows(
            "SELECT DISTINCT parse_filename(file), lo, hi FROM pages "
            "WHERE source = $source AND account = $account"
        )

    def write(self, judged: Sequence[Judged]) -> int:
        """Replace what is written of these chains over their ranges; how many breaks are new."""
        known = {
            (wallet, token, ts): at
            for wallet, token, ts, at in self._rows(
                "SELECT wallet, token, ts, found_at FROM ops.chain_breaks "
                "WHERE source = $source AND account = $account"
            )
        }
        who, new, days = list(self.who.values()), 0, set()
        for one in judged:
            until = one.hi or datetime.max
            for table in ("ops.chain_breaks", "ops.chain_gaps"):
                self.con.execute(
                    f"DELETE FROM {table} WHERE (source, account, wallet, token) = (?, ?, ?, ?) "
                    "AND ts >= ? AND ts <= ?"
                    + (" AND suspect <> 'fee_convention'" if table.endswith("breaks") else ""),
                    [*who, *one.key, one.lo, until],
                )
            for broken, finding in one.found:
                since = known.get((*one.key, broken.ts))
                if since is None:
                    new += 1
                    days.add(broken.ts.date())
                    self._tell(one.key, broken, finding)
                self.con.execute(
                    "INSERT INTO ops.chain_breaks (source, account, wallet, token, after_ts, ts, "
                    "entry_id, missing_text, suspect, suspect_ref, explanation, found_at, batch_id) "
                    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    [
                        *(*who, *one.key, broken.after, broken.ts, finding.entry_id),
                        None if finding.missing is None else plain(finding.missing),
                        *(finding.suspect, finding.suspect_ref, finding.explanation),
                        *(since or self.loaded_at, self.batch_id),
                    ],
                )
            for then, ts in one.gaps:
                self.con.execute(
                    "INSERT INTO ops.chain_gaps (source, account, wallet, token, after_ts, ts, "
                    "batch_id) VALUES (?, ?, ?, ?, ?, ?, ?)",
                    [*who, *one.key, then, ts, self.batch_id],
                )
        self._write_states(judged)
        # What holds an account back has a day that is not published, whatever the load changed.
        for day in sorted(days):
            self.con.execute(
                "INSERT INTO ops.touched_days (dataset, day, batch_id) "
                "SELECT 'exchanges_ledger', $day, $batch WHERE NOT EXISTS (FROM ops.touched_days "
                "WHERE (dataset, day, batch_id) = ('exchanges_ledger', $day, $batch))",
                {"day": day, "batch": self.batch_id},
            )
        return new

    def _write_states(self, judged: Iterable[Judged]) -> None:
        rows = {one.key: one.state for one in judged}
        self.con.execute(
            "DELETE FROM ops.running_balances WHERE source = $source AND account = $account AND "
            "(wallet, token) IN (SELECT (unnest($wallets::VARCHAR[]), unnest($tokens::VARCHAR[])))",
            self.who
            | {"wallets": [wallet for wallet, _ in rows], "tokens": [token for _, token in rows]},
        )
        values = [
            [
                *(*self.who.values(), *key, state.status, state.convention, state.first_ts),
                *(_text(state.opening), state.opening_ref, state.opening_file),
                *(state.last_ts, _text(state.last), self.batch_id),
            ]
            for key, state in rows.items()
            if state
        ]
        if values:
            columns = ", ".join("unnest(?)" for _ in values[0])
            self.con.execute(
                "INSERT INTO ops.running_balances (source, account, wallet, token, status, "
                "convention, first_ts, opening_text, opening_ref, opening_file, last_ts, last_text, "
                f"batch_id) SELECT {columns}",
                [list(column) for column in zip(*values)],
            )

    def _tell(self, key: Key, broken: ChainBreak, finding: Finding) -> None:
        log.warning(
            "%s %s: the running balance of %s in wallet %s breaks at entry %s of %s: %s",
            *(*self.who.values(), key[1], key[0], finding.entry_id, iso(broken.ts)),
            finding.explanation,
        )


def _decimal(text: str | None) -> Decimal | None:
    return None if text is None else Decimal(text)


def _text(amount: Decimal | None) -> str | None:
    return None if amount is None else plain(amount)
