"""Openings: what an account held before its history begins.

Where entries state running balances, they say it exactly (see exact_openings). Of the rest an opening is inferred at the first snapshot that the history reaches, and is provisional until
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
from ledgerhouse.transform.exact_openings import ExactOpenings
from ledgerhouse.transform.residuals import Owner, Residual, Token, most_growth, plain, residuals
from ledgerhouse.transform.whole_days import ODD_DAYS, odd_legs

if TYPE_CHECKING:
    import duckdb

SETTLED = timedelta(hours=24)  # vendors index late
COLUMNS = "adjustment_id, source, account, token, ts, kind, amount_text, evidence, note"

WANTED = """
    WITH wanted AS (
        SELECT unnest($sources::VARCHAR[]) AS source, unnest($accounts::VARCHAR[]) AS account,
            unnest($at::TIMESTAMP[]) AS first_ts
    )"""
# Days of which FORBIDDEN must know each leg: that of the snapshot, those that hold adjustments, and
# all of a token that may have come by scams alone.
ODD = f"""{WANTED}, flows AS (
        SELECT f.*, legs + overflow_legs + unsettled_legs + unknown_legs AS honest,
            CAST(first_ts AS DATE) AS first_day
        FROM curated.daily_flows f JOIN wanted USING (source, account)
        WHERE date <= CAST(first_ts AS DATE) AND token <> ''
    ), adjusted AS (
        SELECT source, account, token, CAST(ts AS DATE) AS date, count(*) AS rows
        FROM raw.adjustments GROUP BY ALL
    ), doubtful AS (
        SELECT source, account, token FROM flows
        LEFT JOIN (SELECT source, account, token, sum(rows) AS rows FROM adjusted GROUP BY ALL)
            USING (source, account, token)
        GROUP BY ALL HAVING sum(scam_legs) > 0
            AND coalesce(sum(honest) FILTER (date < first_day), 0) <= coalesce(any_value(rows), 0)
    )
    SELECT source, account, token, date FROM flows
    WHERE date = first_day OR (source, account, token) IN (FROM doubtful)
        OR (source, account, token, date) IN (SELECT (source, account, token, date) FROM adjusted)"""

# Of the tokens at each account's first snapshot: what forbids an opening.
FORBIDDEN = f"""{WANTED}, held AS (
        SELECT source, account, token, list(DISTINCT wallet) AS wallets,
            bool_or(is_verified IS FALSE) AS unverified,
            sum(CAST(amount AS DECIMAL(32, 6))) AS reported
        FROM raw.balances
        WHERE (source, account, ts) IN (SELECT (source, account, first_ts) FROM wanted)
        GROUP BY ALL
    ), days AS (
        SELECT source, account, token, scam_legs AS scams, unknown_legs AS unknown,
            legs + overflow_legs + unsettled_legs + unknown_legs AS honest,
            NULL AS scam, true AS fits
        FROM curated.daily_flows JOIN wanted USING (source, account)
        ANTI JOIN {ODD_DAYS} USING (source, account, token, date)
        WHERE date < CAST(first_ts AS DATE)
        UNION ALL
        SELECT source, account, token, CAST(is_scam AS INT),
            CAST(is_settled AND NOT is_scam AND kind <> 'nft' AND amount_wide IS NULL AS INT),
            CAST(NOT is_scam AND kind <> 'nft' AS INT),
            CASE WHEN is_scam AND is_settled THEN TRY_CAST(amount_wide AS DECIMAL(32, 6)) END,
            TRY_CAST(amount_wide AS DECIMAL(32, 6)) IS NOT NULL
        FROM {{odd_legs}} JOIN wanted USING (source, account)
        WHERE ts < first_ts AND domain <> 'adjustment'
    ), moved AS (
        SELECT source, account, token, sum(scams) AS scams, sum(unknown) AS unknown,
            sum(honest) AS honest, CASE WHEN bool_and(fits) THEN sum(scam) END AS scam
        FROM days GROUP BY ALL
    ), unread AS (  -- one second of a chain may stay so for good: the opening says so by its status
        SELECT source, account, list(part) AS parts FROM ops.unread_parts
        WHERE end_ts - start_ts > INTERVAL 1 SECOND GROUP BY ALL
    ), rejected AS (
        SELECT source, account, payload FROM raw.rejected SEMI JOIN wanted USING (source, account)
        WHERE dataset IN ('exchanges_ledger', 'onchain_transactions', 'onchain_transfers')
    ), tokens AS (
        FROM held FULL JOIN moved USING (source, account, token) WHERE token <> ''
    ), unreadable AS (
        SELECT DISTINCT source, account, token FROM tokens JOIN rejected USING (source, account)
        WHERE contains(payload, '"' || list_last(string_split(token, ':')) || '"')
    )
    SELECT source, account, token,
        coalesce(list_has_any(wallets, parts), false) AS is_unread,
        coalesce(unverified, false) AND (coalesce(honest, 0) = 0 OR coalesce(scams, 0) > 0)
            OR coalesce(honest, 0) = 0 AND coalesce(scams, 0) > 0
                AND coalesce(abs(reported - scam) <= CAST(0.00001
                    + TRY_CAST(abs(reported) AS DECIMAL(26, 0))
                    * CAST(0.000000000001 AS DECIMAL(12, 12)) AS DECIMAL(38, 6)), true)
            OR coalesce(unknown, 0) > 0
            OR (source, account, token) IN (FROM unreadable) AS is_forbidden
    FROM tokens LEFT JOIN unread USING (source, account)"""


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
    """The openings of every account, exact and inferred; those of the latter that can be fixed now
    are noted, with what a wallet's first entry says exactly among them."""
    noted, exact = _read_notes(root), ExactOpenings.read(con)
    rows = [
        Adjustment(
            "/".join((*token, "opening", "wallet", opening.wallet)),
            *(*token, opening.since, "opening", opening.amount, opening.evidence),
        )
        for token, each in exact.by_token.items()
        for opening in each
        if opening.amount
    ]
    fixed_of = {who: noted.get((*who, since)) for who, (since, _) in found.items()}
    firsts = {
        who: fixed.snapshot if (fixed := fixed_of[who]) and fixed.snapshot in at else at[0]
        for who, (_, at) in found.items()
    }
    # Of accounts with openings to infer: tokens that may have one, and those whose part is unread.
    candidates: dict[Owner, list[Token]] = {
        who: [] for who, fixed in fixed_of.items() if fixed is None or fixed.pending
    }
    pending: dict[Owner, set[str]] = {who: set() for who in candidates}
    for *owner, token, is_unread, is_forbidden in forbidden(
        con, {who: firsts[who] for who in candidates}
    ):
        who = (owner[0], owner[1])
        fixed = fixed_of[who]
        if fixed is None or token in fixed.pending:
            if is_unread:
                pending[who].add(token)
            elif not is_forbidden:
                candidates[who].append((*who, token))
    at_first = residuals(
        con,
        [token for tokens in candidates.values() for token in tokens],
        {who: [firsts[who]] for who in candidates},
        bare=True,
    )
    for who, (since, instants) in found.items():
        fixed, first = fixed_of[who], firsts[who]
        amounts: dict[str, Decimal] = dict(fixed.amounts) if fixed else {}
        evidence = fixed.evidence if fixed else _evidence(con, who, first)
        if who in candidates:
            mine = {token: at_first[token][0] for token in candidates[who]}
            fresh, waits = _inferred(con, mine, since, placed), frozenset(pending[who])
            can_fix = instants[-1] >= first + SETTLED
            if can_fix and note and (fixed is None or waits != fixed.pending):
                _note(root, who, since, Noted(first, evidence, fresh, waits))
            amounts |= fresh
        for token, amount in exact.left(con, who, first, amounts).items():
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


def forbidden(
    con: duckdb.DuckDBPyConnection, firsts: Mapping[Owner, datetime]
) -> list[tuple[str, str, str, bool, bool]]:
    """The tokens at or before the first covered snapshot of each account (source, account, token),
    whether their part of it is unread, and whether they can have no opening."""
    if not firsts:
        return []
    params = {
        "sources": [source for source, _ in firsts],
        "accounts": [account for _, account in firsts],
        "at": list(firsts.values()),
    }
    query = FORBIDDEN.format(odd_legs=odd_legs(con, ODD, params))
    return con.execute(query, params).fetchall()


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
