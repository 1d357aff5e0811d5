"""Reported against computed at every balance snapshot of a token, exactly.

    snapshots(con)                      the covered snapshots by account, oldest first
    residuals(con, tokens, …)           what was reported and computed at each of them

`curated.reconciliation` shows the newest snapshot alone; what a residual means shows in how it
came: openings, growth and breaks are read from all of them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal, InvalidOperation, localcontext
from typing import TYPE_CHECKING

from ledgerhouse.transform.whole_days import ODD_DAYS, odd_legs

if TYPE_CHECKING:
    import duckdb

Owner = tuple[str, str]  # source, account
Token = tuple[str, str, str]  # source, account, token

NOISE = Decimal("3e-16")  # of the turnover on chains, whose amounts are JSON doubles
CENT = Decimal("0.01")  # the turnover is rounded to it, as in curated.reconciliation
PRECISION = 100
ROUNDED = Decimal("1e-15")  # who sends all there is, sends it rounded

# Of each account: where its coverage begins, and where its first hole does.
HISTORIES = """
    SELECT source, account, min(start_ts) AS since,
        coalesce(min(reached) FILTER (start_ts > reached), max(end_ts)) AS covered_to
    FROM (SELECT source, account, dataset, start_ts, end_ts, max(end_ts) OVER (
              PARTITION BY source, account, dataset ORDER BY start_ts, end_ts
              ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS reached
          FROM ops.coverage WHERE dataset IN ('exchanges_ledger', 'onchain_transactions'))
    GROUP BY ALL"""
SNAPSHOTS = f"""
    SELECT DISTINCT s.source, s.account, s.start_ts AS ts, h.since
    FROM ops.coverage s JOIN ({HISTORIES}) h USING (source, account)
    WHERE s.dataset = 'balances' AND s.start_ts <= h.covered_to AND s.start_ts > h.since
    ORDER BY ALL"""

# SUM of DECIMAL(38,18) raises past 1e20: whole and fractional parts are summed apart.
_SUMS = """sum(CAST(trunc({0}) AS DECIMAL(20, 0))) {1} AS {2}_whole,
    sum(CAST({0} - trunc({0}) AS DECIMAL(18, 18))) {1} AS {2}_part"""
WANTED = """
    WITH wanted AS (
        SELECT unnest($sources::VARCHAR[]) AS source, unnest($accounts::VARCHAR[]) AS account,
            unnest($tokens::VARCHAR[]) AS token
    ), instants AS (
        SELECT unnest($at_sources::VARCHAR[]) AS source, unnest($at_accounts::VARCHAR[]) AS account,
            unnest($at::TIMESTAMP[]) AS ts
    )"""
# Days whose flow is not what moved before an instant, to the last digit.
ODD = f"""{WANTED}
    SELECT source, account, token, date FROM curated.daily_flows
    SEMI JOIN wanted USING (source, account, token)
    WHERE date <= (SELECT max(ts) FROM instants) AND (
        net IS NULL OR turnover IS NULL OR overflow_legs > 0 OR unknown_legs > 0
        OR (source, account, date) IN (SELECT (source, account, CAST(ts AS DATE)) FROM instants
            WHERE ts > CAST(ts AS DATE))
        OR $bare::BOOLEAN AND (source, account, token, date) IN (
            SELECT (source, account, token, CAST(ts AS DATE)) FROM raw.adjustments))"""
RESIDUALS = f"""{WANTED}, reported AS (
        SELECT source, account, token, ts, {_SUMS.format("amount", "", "reported")},
            count(*) FILTER (amount IS NULL) AS lost
        FROM raw.balances SEMI JOIN wanted USING (source, account, token) GROUP BY ALL
    ), legs AS (
        SELECT source, account, token, CAST(date AS TIMESTAMP) AS ts, net AS amount, turnover,
            false AS is_lost
        FROM curated.daily_flows SEMI JOIN wanted USING (source, account, token)
        ANTI JOIN {ODD_DAYS} USING (source, account, token, date)
        WHERE token <> ''  -- legs without a token
        UNION ALL
        SELECT source, account, token, ts, CASE WHEN counts THEN amount END AS amount,
            abs(CASE WHEN counts THEN amount END) AS turnover,
            NOT counts AND is_settled AND NOT is_scam AND kind <> 'nft' AS is_lost
        FROM {{odd_legs}}
        WHERE NOT $bare::BOOLEAN OR domain <> 'adjustment'
    ), moved AS (
        SELECT l.source, l.account, l.token, i.ts, {_SUMS.format("l.amount", "", "moved")},
            {_SUMS.format("l.turnover", "", "turned")},
            count(*) FILTER (l.is_lost) AS lost
        FROM legs l ASOF JOIN instants i
            ON i.source = l.source AND i.account = l.account AND l.ts < i.ts
        GROUP BY ALL
    )
    SELECT w.source, w.account, w.token, i.ts,
        coalesce(r.reported_whole, 0), coalesce(r.reported_part, 0), coalesce(r.lost, 0),
        coalesce(m.moved_whole, 0), coalesce(m.moved_part, 0),
        coalesce(m.turned_whole, 0), coalesce(m.turned_part, 0),
        coalesce(m.lost, 0)
    FROM wanted w JOIN instants i USING (source, account)
    LEFT JOIN reported r USING (source, account, token, ts)
    LEFT JOIN moved m USING (source, account, token, ts)
    ORDER BY w.source, w.account, w.token, i.ts"""


# Amounts that fit no DECIMAL(38,18), by their text: few.
LARGE = """
    WITH wanted AS (
        SELECT unnest($sources::VARCHAR[]) AS source, unnest($accounts::VARCHAR[]) AS account,
            unnest($tokens::VARCHAR[]) AS token
    )
    SELECT source, account, token, ts, amount_text, true FROM raw.balances
    SEMI JOIN wanted USING (source, account, token) WHERE amount IS NULL
    UNION ALL
    SELECT source, account, token, ts, amount_text, false FROM curated.tx_unified
    SEMI JOIN wanted USING (source, account, token)
    WHERE amount IS NULL AND is_settled AND NOT is_scam AND kind <> 'nft'
        AND (NOT $bare::BOOLEAN OR domain <> 'adjustment')"""
LARGEST = Decimal("1e32")  # as the wide sums of the models: beyond it, it is nothing to be held


def plain(amount: Decimal) -> str:
    """An amount as text, without an exponent or trailing zeros."""
    text = format(amount, "f")
    return (text.rstrip("0").rstrip(".") if "." in text else text) or "0"


@dataclass(frozen=True)
class Residual:
    """A token at one snapshot. `lost`: amounts that are not known, or beyond LARGEST."""

    ts: datetime
    reported: Decimal
    computed: Decimal
    turnover: Decimal
    lost: int
    onchain: bool

    @property
    def difference(self) -> Decimal:
        with localcontext(prec=PRECISION):
            return self.reported - self.computed

    @property
    def tolerance(self) -> Decimal:
        """Largest difference that is no error."""
        if not self.onchain:
            return Decimal(0)
        with localcontext(prec=PRECISION):
            return (self.turnover.quantize(CENT) + CENT) * NOISE

    @property
    def agrees(self) -> bool:
        return not self.lost and abs(self.difference) <= self.tolerance

    def plus(self, amounts: Iterable[Decimal]) -> Residual:
        """The same with these movements summed too."""
        with localcontext(prec=PRECISION):
            amounts = list(amounts)
            return replace(
                self,
                computed=self.computed + sum(amounts),
                turnover=self.turnover + sum(map(abs, amounts)),
            )


def is_growth(
    step: Decimal, held: Decimal, rate: Decimal, since: datetime, until: datetime
) -> bool:
    """Whether a token that grows by at most `rate` a day may have moved by `step` in that time."""
    days = max(Decimal(1), Decimal((until - since).total_seconds()) / 86400)
    return abs(step) <= held * rate * days


def most_growth(
    con: duckdb.DuckDBPyConnection, token: Token, rate: Decimal, since: datetime, until: datetime
) -> Decimal:
    """How much a token that grows by at most `rate` a day may have grown in a history that begins
    with none of it, given all that moved: what was held a year ago and is gone has grown, too.

    Nothing where more went out than had come in and grown: then it was held before.
    """
    held, grown, then = Decimal(0), Decimal(0), since
    legs = con.execute(
        "SELECT ts, amount FROM curated.tx_unified WHERE (source, account, token) = (?, ?, ?) "
        "AND domain <> 'adjustment' AND counts AND ts >= ? AND ts < ? ORDER BY ts, amount DESC",
        [*token, since, until],
    ).fetchall()
    with localcontext(prec=PRECISION):
        for ts, amount in [*legs, (until, Decimal(0))]:
            days = Decimal(round((ts - then).total_seconds())) / 86400
            grown = (held + grown) * (1 + rate) ** days - held  # what has grown grows, too
            held, then = held + amount, ts
            if held + grown < -ROUNDED:
                return Decimal(0)
    return grown


def snapshots(con: duckdb.DuckDBPyConnection) -> dict[Owner, tuple[datetime, list[datetime]]]:
    """By account: where its coverage begins, and the snapshots its history reaches, oldest first."""
    found: dict[Owner, tuple[datetime, list[datetime]]] = {}
    for source, account, ts, since in con.execute(SNAPSHOTS).fetchall():
        found.setdefault((source, account), (since, []))[1].append(ts)
    return found


def residuals(
    con: duckdb.DuckDBPyConnection,
    tokens: Iterable[Token],
    instants: Mapping[Owner, Collection[datetime]],
    *,
    bare: bool = False,
) -> dict[Token, list[Residual]]:
    """Each token at the `instants` of its account, oldest first; movements before them are summed.

    `bare`: without the adjustments.
    """
    tokens = sorted({token for token in tokens if instants.get(token[:2])})
    if not tokens:
        return {}
    at = sorted((*who, ts) for who in {t[:2] for t in tokens} for ts in instants[who])
    lists = list(zip(*tokens)), list(zip(*at))
    found: dict[Token, list[Residual]] = {token: [] for token in tokens}
    sums: dict[Token, tuple[Decimal, Decimal, int]] = {}
    params = {
        "sources": list(lists[0][0]),
        "accounts": list(lists[0][1]),
        "tokens": list(lists[0][2]),
        "at_sources": list(lists[1][0]),
        "at_accounts": list(lists[1][1]),
        "at": list(lists[1][2]),
        "bare": bare,
    }
    query = RESIDUALS.format(odd_legs=odd_legs(con, ODD, params))
    with localcontext(prec=PRECISION):
        for row in con.execute(query, params).fetchall():
            token, ts = row[:3], row[3]
            held, turned, lost = sums.get(token, (Decimal(0), Decimal(0), 0))
            held += Decimal(row[7]) + row[8]
            turned += Decimal(row[9]) + row[10]
            lost += row[11]
            sums[token] = held, turned, lost
            reported = Decimal(row[4]) + row[5]
            found[token].append(
                Residual(ts, reported, held, turned, lost + row[6], ":" in token[2])
            )
    lost_of = [token for token, each in found.items() if any(r.lost for r in each)]
    if lost_of:
        _add_large(con, lost_of, found, bare)
    return found


def _add_large(
    con: duckdb.DuckDBPyConnection,
    tokens: list[Token],
    found: dict[Token, list[Residual]],
    bare: bool,
) -> None:
    """Add to the residuals what no DECIMAL(38,18) holds and a text does."""
    names = dict(zip(("sources", "accounts", "tokens"), map(list, zip(*tokens))))
    for *token, ts, text, is_reported in con.execute(LARGE, {**names, "bare": bare}).fetchall():
        try:
            amount = Decimal(text)
        except (InvalidOperation, TypeError):
            continue
        if not amount.is_finite() or abs(amount) >= LARGEST:
            continue
        each = found[token[0], token[1], token[2]]
        for place, r in enumerate(each):
            with localcontext(prec=PRECISION):
                if is_reported and r.ts == ts:
                    each[place] = replace(r, reported=r.reported + amount, lost=r.lost - 1)
                elif not is_reported and ts < r.ts:
                    each[place] = replace(r.plus([amount]), lost=r.lost - 1)
