"""Openings: what an account held before its history begins, inferred from its first snapshot.

An opening is inferred at the first snapshot that the history reaches, and is provisional until
another is covered that is SETTLED later. Then it is fixed, and noted in the landing, so that a
replay books the same. Tokens whose part of the account is unread wait until it is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

from extract.core.interval import iso
from extract.fetch import landing
from ledgerhouse.transform.adjustments_file import Entry, bands
from ledgerhouse.transform.residuals import Owner, Residual, Token, most_growth, plain, residuals
from ledgerhouse.transform.whole_days import ODD_DAYS, odd_legs

if TYPE_CHECKING:
    import duckdb

SETTLED = timedelta(hours=24)  # vendors index late
COLUMNS = "adjustment_id, source, account, token, ts, kind, amount_text, evidence, note"

# Days of which FORBIDDEN must know each leg: that of the snapshot, those that hold adjustments, and
# all of a token that may have come by scams alone.
ODD = """
    WITH flows AS (
        FROM curated.daily_flows
        WHERE (source, account) = ($source, $account) AND date <= CAST($ts AS DATE) AND token <> ''
    ), adjusted AS (
        SELECT token, CAST(ts AS DATE) AS date FROM raw.adjustments
        WHERE (source, account) = ($source, $account)
    ), doubtful AS (
        SELECT token FROM flows GROUP BY token HAVING sum(scam_legs) > 0
            AND coalesce(sum(legs + overflow_legs + unsettled_legs + unknown_legs)
                FILTER (date < CAST($ts AS DATE)), 0)
                <= (SELECT count(*) FROM adjusted a WHERE a.token = flows.token)
    )
    SELECT source, account, token, date FROM flows
    WHERE date = CAST($ts AS DATE) OR token IN (FROM doubtful)
        OR (token, date) IN (SELECT (token, date) FROM adjusted)"""

# Of the tokens at an account's first snapshot: what forbids an opening.
FORBIDDEN = """
    WITH held AS (
        SELECT token, list(DISTINCT wallet) AS wallets, bool_or(is_verified IS FALSE) AS unverified,
            sum(CAST(amount AS DECIMAL(32, 6))) AS reported
        FROM raw.balances WHERE (source, account, ts) = ($source, $account, $ts) GROUP BY ALL
    ), days AS (
        SELECT token, scam_legs AS scams, unknown_legs AS unknown,
            legs + overflow_legs + unsettled_legs + unknown_legs AS honest,
            NULL AS scam, true AS fits
        FROM curated.daily_flows ANTI JOIN {odd_days} USING (source, account, token, date)
        WHERE (source, account) = ($source, $account) AND date < CAST($ts AS DATE)
        UNION ALL
        SELECT token, CAST(is_scam AS INT),
            CAST(is_settled AND NOT is_scam AND kind <> 'nft' AND amount_wide IS NULL AS INT),
            CAST(NOT is_scam AND kind <> 'nft' AS INT),
            CASE WHEN is_scam AND is_settled THEN TRY_CAST(amount_wide AS DECIMAL(32, 6)) END,
            TRY_CAST(amount_wide AS DECIMAL(32, 6)) IS NOT NULL
        FROM {odd_legs} WHERE ts < $ts AND domain <> 'adjustment'
    ), moved AS (
        SELECT token, sum(scams) AS scams, sum(unknown) AS unknown, sum(honest) AS honest,
            CASE WHEN bool_and(fits) THEN sum(scam) END AS scam
        FROM days GROUP BY ALL
    ), unread AS (  -- one second of a chain may stay so for good: the opening says so by its status
        SELECT part FROM ops.unread_parts WHERE (source, account) = ($source, $account)
            AND end_ts - start_ts > INTERVAL 1 SECOND
    ), rejected AS (
        SELECT payload FROM raw.rejected WHERE (source, account) = ($source, $account)
            AND dataset IN ('exchanges_ledger', 'onchain_transactions', 'onchain_transfers')
    )
    SELECT token,
        coalesce(list_has_any(wallets, (SELECT coalesce(list(part), []) FROM unread)), false)
            AS is_unread,
        coalesce(unverified, false) AND (coalesce(honest, 0) = 0 OR coalesce(scams, 0) > 0)
            OR coalesce(honest, 0) = 0 AND coalesce(scams, 0) > 0
                AND coalesce(abs(reported - scam) <= CAST(0.00001
                    + TRY_CAST(abs(reported) AS DECIMAL(26, 0))
                    * CAST(0.000000000001 AS DECIMAL(12, 12)) AS DECIMAL(38, 6)), true)
            OR coalesce(unknown, 0) > 0
            OR EXISTS (FROM rejected WHERE contains(payload,
                '"' || list_last(string_split(token, ':')) || '"')) AS is_forbidden
    FROM held FULL JOIN moved USING (token) WHERE token <> ''"""


@dataclass(frozen=True)
class Adjustment:
    """A row of raw.adjustments."""

    adjustment_id: str
    source: str
    account: str
    token: str
    ts: datetime
    kind: str
    amount: Decimal
    evidence: str
    note: str | None = None

    @property
    def key(self) -> Token:
        return self.source, self.account, self.token

    def row(self) -> tuple:
        """The values of COLUMNS."""
        return (
            *(self.adjustment_id, self.source, self.account, self.token, self.ts, self.kind),
            *(plain(self.amount), self.evidence, self.note),
        )


@dataclass(frozen=True)
class Noted:
    """Openings of an account that are fixed, and the tokens whose part was unread then."""

    snapshot: datetime
    evidence: str
    amounts: dict[str, Decimal] = field(default_factory=dict)
    pending: frozenset[str] = frozenset()


def openings(
    con: duckdb.DuckDBPyConnection,
    root: Path,
    found: Mapping[Owner, tuple[datetime, list[datetime]]],
    placed: Mapping[Token, list[Entry]],
    *,
    note: bool,
) -> list[Adjustment]:
    """The inferred openings of every account; those that can be fixed now are noted."""
    noted, rows = _read_notes(root), []
    firsts: dict[Owner, datetime] = {}
    asked: dict[Owner, tuple[list[Token], frozenset[str]]] = {}
    for who, (since, instants) in found.items():
        fixed = noted.get((*who, since))
        firsts[who] = fixed.snapshot if fixed and fixed.snapshot in instants else instants[0]
        if fixed is None or fixed.pending:
            asked[who] = _candidates(con, who, firsts[who], fixed and fixed.pending)
    at_first = residuals(
        con,
        [token for tokens, _ in asked.values() for token in tokens],
        {who: [firsts[who]] for who in asked},
        bare=True,
    )
    for who, (since, instants) in found.items():
        fixed, first = noted.get((*who, since)), firsts[who]
        amounts: dict[str, Decimal] = dict(fixed.amounts) if fixed else {}
        evidence = fixed.evidence if fixed else _evidence(con, who, first)
        if who in asked:
            tokens, pending = asked[who]
            fresh = _inferred(con, {t: at_first[t][0] for t in tokens}, since, placed)
            can_fix = instants[-1] >= first + SETTLED
            if can_fix and note and (fixed is None or pending != fixed.pending):
                _note(root, who, since, Noted(first, evidence, fresh, pending))
            amounts |= fresh
        for token, amount in amounts.items():
            # One who knows it exactly says so in adjustments.toml.
            if not any(entry.kind == "opening" for entry in placed.get((*who, token), ())):
                ident = "/".join((*who, token, "opening_inferred"))
                rows.append(
                    Adjustment(ident, *who, token, since, "opening_inferred", amount, evidence)
                )
    # Of an account whose history has a hole before its first snapshot by now: as they were.
    for ident, source, account, token, ts, kind, amount, evidence, words in con.execute(
        f"SELECT {COLUMNS} FROM raw.adjustments WHERE kind = 'opening_inferred'"
    ).fetchall():
        if (source, account) not in found:
            rows.append(
                Adjustment(
                    ident, source, account, token, ts, kind, Decimal(amount), evidence, words
                )
            )
    return rows


def _candidates(
    con: duckdb.DuckDBPyConnection, who: Owner, first: datetime, only: frozenset[str] | None
) -> tuple[list[Token], frozenset[str]]:
    """Tokens that may have an opening at an account's first covered snapshot, and those whose part
    is unread; of `only` these, where given."""
    tokens, pending = [], set()
    params = {"source": who[0], "account": who[1], "ts": first}
    query = FORBIDDEN.format(odd_days=ODD_DAYS, odd_legs=odd_legs(con, ODD, params))
    for token, is_unread, is_forbidden in con.execute(query, params).fetchall():
        if only is not None and token not in only:
            continue
        if is_unread:
            pending.add(token)
        elif not is_forbidden:
            tokens.append((*who, token))
    return tokens, frozenset(pending)


def _inferred(
    con: duckdb.DuckDBPyConnection,
    at_first: Mapping[Token, Residual],
    since: datetime,
    placed: Mapping[Token, list[Entry]],
) -> dict[str, Decimal]:
    """Openings by token, from the residuals of an account's first covered snapshot. Its history
    begins at `since`."""
    amounts = {}
    rebasing = bands()
    for token, residual in at_first.items():
        first = residual.ts
        residual = residual.plus(e.amount for e in placed.get(token, ()) if e.ts < first)
        # Of a rebasing token that was received since, it may be growth alone: see adjustments.
        rate = rebasing.get(token[2])
        grown = rate is not None and residual.difference <= most_growth(
            con, token, rate, since, first
        )
        if not residual.lost and residual.difference > residual.tolerance and not grown:
            amounts[token[2]] = residual.difference
    return amounts


def _evidence(con: duckdb.DuckDBPyConnection, who: Owner, ts: datetime) -> str:
    """A snapshot and the landed file that it came with."""
    file = con.execute(
        "SELECT min(f.file) FROM ops.coverage c JOIN ops.landed_files f USING (batch_id) "
        "WHERE (c.source, c.account, c.start_ts) = (?, ?, ?) AND c.dataset = 'balances' "
        "AND starts_with(f.file, ?)",
        [*who, ts, "~".join((*who, ""))],
    ).fetchone()
    return f"snapshot of {iso(ts)}" + (f" in {file[0]}" if file and file[0] else "")


def _note(root: Path, who: Owner, since: datetime, noted: Noted) -> None:
    """Note in the landing that these openings are fixed."""
    record = {
        "source": who[0],
        "account": who[1],
        "since": iso(since),
        "snapshot": iso(noted.snapshot),
        "evidence": noted.evidence,
        "amounts": {token: plain(amount) for token, amount in noted.amounts.items()},
        "pending": sorted(noted.pending),
    }
    landing.note_openings(root, record)


def _read_notes(root: Path) -> dict[tuple[str, str, datetime], Noted]:
    """What is fixed, by account and begin of its history."""
    found: dict[tuple[str, str, datetime], Noted] = {}
    for record in landing.openings(root):
        since, snapshot = (
            datetime.fromisoformat(record[name]).replace(tzinfo=None)
            for name in ("since", "snapshot")
        )
        key = (record["source"], record["account"], since)
        amounts = {token: Decimal(text) for token, text in record["amounts"].items()}
        before = found[key].amounts if key in found else {}
        found[key] = Noted(
            snapshot, record["evidence"], amounts | before, frozenset(record["pending"])
        )
    return found
