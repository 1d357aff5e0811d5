"""Queries of the page on the published books; every answer is bounded, amounts are text.

`ops.spending`, `ops.budgets` and `ops.incidents` are read where the books have them: books
published by an older version do not.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

from extract.core import sealed
from extract.core.interval import utc
from ledgerhouse.check.agreement import AGREED, agreed_share
from ledgerhouse.check.data_docs import folder_of
from ledgerhouse.config import Rules
from ledgerhouse.operate.alerts.heartbeat import is_alive, newest_read
from ledgerhouse.operate.commands.tables import digits
from ledgerhouse.operate.ui.calendar import when
from ledgerhouse.plan.coverage import PENDING
from ledgerhouse.publish.books import has
from ledgerhouse.warehouse.spending_views import CALLED

if TYPE_CHECKING:
    import duckdb

MOST_ROWS = 200  # of a table, a page
MOST_POINTS = 1_500  # of a line
MOST_ASSETS = 5_000
MOST_FAILED = 20  # failed expectations named, a checkpoint
MOST_INCIDENTS = 50


def overview(
    con: duckdb.DuckDBPyConnection,
    docs: Path,
    now: datetime | None = None,
    stale_after: timedelta = Rules.stale_after,
) -> dict:
    """The figures at the head of the page. `now` is naive UTC; `silent_hours` are those that are
    allowed, where no sync has come for longer."""
    now = now or datetime.now(UTC).replace(tzinfo=None)
    alive = is_alive(newest_read(con), stale_after, utc(now))
    ((generation, at, run_id),) = con.execute(
        "SELECT generation, published_at, run_id FROM main.published"
    ).fetchall()
    spans = con.execute("FROM ops.reached ORDER BY source, account").fetchall()
    statuses = dict(
        con.execute("SELECT status, count(*) FROM curated.reconciliation GROUP BY 1").fetchall()
    )
    ((pending,),) = con.execute(
        "SELECT count(*) FROM raw.exchanges_ledger WHERE vanished_at IS NULL "
        f"AND status IN {PENDING}"
    ).fetchall()
    return {
        "published": {"generation": generation, "at": when(at), "run": run_id},
        "now": when(now),
        "silent_hours": None if alive else f"{stale_after.total_seconds() / 3600:g}",
        "through": when(min((whole_to for _, _, _, whole_to, _, _ in spans), default=None)),
        "newest": when(max((until for *_, until, _ in spans), default=None)),
        "accounts": [{"source": s, "account": a} for s, a, *_ in spans],
        "agreed": sum(statuses.get(status, 0) for status in AGREED),
        "statuses": statuses,
        "kinds": _kinds(con),
        "share": None if (share := agreed_share(con)) is None else str(share),
        "held": held_accounts(con),
        "balances": sum(statuses.values()),
        "off": statuses.get("off", 0),
        "awaiting": statuses.get("awaiting_coverage", 0),
        "gaps": sum(gaps for *_, gaps in spans),
        "unread": _unread(con),
        "pending": pending,
        "month": _month(con, now.date()),
        "incidents": _incidents(con),
        "checkpoints": _checkpoints(con, docs),
        "refused": refused(docs, at),
    }


def _unread(con: duckdb.DuckDBPyConnection) -> int:
    """Parts of accounts (a wallet, a chain) that could not be read over some time."""
    if not has(con, "ops.unread_parts"):
        return 0
    ((count,),) = con.execute(
        "SELECT count(*) FROM (SELECT DISTINCT source, account, part FROM ops.unread_parts)"
    ).fetchall()
    return count


def held_accounts(con: duckdb.DuckDBPyConnection) -> list[dict]:
    """The accounts whose newest days these books do not have: since when, and why."""
    if not has(con, "ops.held_accounts"):
        return []
    return [
        {"source": source, "account": account, "since": when(since), "reason": reason, "run": run}
        for source, account, since, reason, run in con.execute(
            "SELECT source, account, held_since, reason, run_id FROM ops.held_accounts "
            f"ORDER BY ALL LIMIT {MOST_ROWS}"
        ).fetchall()
    ]


def breaks(con: duckdb.DuckDBPyConnection) -> dict:
    """{rows, total}: tokens that differ from what is reported, the newest first: the window
    (after, until], the step there, what is left, the suspect, and what reading it again takes."""
    if not has(con, "ops.breaks"):
        return {"rows": [], "total": 0}
    names = ("source", "account", "token", "symbol", "chain", "status", "step", "residual")
    names += ("suspect", "explanation", "calls", "units")
    found = con.execute(
        f"""
        SELECT b.source, b.account, b.token, coalesce(a.symbol, b.token), coalesce(a.chain, ''),
               r.status, b.step_text, b.residual_text, b.suspect, b.explanation, b.refetch_calls,
               b.refetch_units, b.last_good_ts, b.first_bad_ts, count(*) OVER ()
        FROM ops.breaks b LEFT JOIN curated.assets a ON a.token = b.token
        LEFT JOIN curated.reconciliation r ON r.source = b.source AND r.account = b.account
            AND r.token = b.token
        ORDER BY coalesce(r.status IN {AGREED}, false), b.first_bad_ts DESC, b.source, b.account,
            b.token
        LIMIT {MOST_ROWS}"""
    ).fetchall()
    return {
        "rows": [
            dict(zip(names, row)) | {"after": when(row[12]), "until": when(row[13])}
            for row in found
        ],
        "total": found[0][-1] if found else 0,
    }


def _kinds(con: duckdb.DuckDBPyConnection) -> dict[str, int]:
    """How many balances are explained by what."""
    if "kind" not in _columns(con, "curated.reconciliation"):
        return {}
    return dict(
        con.execute(
            "SELECT coalesce(kind, ''), count(*) FROM curated.reconciliation "
            "WHERE status = 'explained' GROUP BY 1 ORDER BY 2 DESC, 1"
        ).fetchall()
    )


def _columns(con: duckdb.DuckDBPyConnection, table: str) -> set[str]:
    """The columns that these books have of a table: older ones have fewer."""
    return {name for name, *_ in con.execute(f"DESCRIBE {table}").fetchall()}


def _month(con: duckdb.DuckDBPyConnection, today: date) -> list[dict]:
    """Per source: calls and units of the month, what is allowed, and what a full refresh costs.

    `full` and `ours` compare the days that have a full refresh to compare with; None without.
    """
    table = "ops.spending" if has(con, "ops.spending") else f"({CALLED})"
    allowed = _budgets(con)
    return [
        {
            "source": source,
            "calls": calls,
            "units": units,
            "allowed": {
                measure: allowed.get((source, measure, "month")) for measure in ("calls", "units")
            },
            "full": {"calls": full_calls, "units": full_units},
            "ours": {"calls": our_calls, "units": our_units},
        }
        for source, calls, units, full_calls, full_units, our_calls, our_units in con.execute(
            f"""
        SELECT source, sum(calls)::BIGINT, sum(units)::BIGINT, sum(full_refresh_calls)::BIGINT,
               sum(full_refresh_units)::BIGINT,
               sum(calls) FILTER (full_refresh_calls IS NOT NULL)::BIGINT,
               sum(units) FILTER (full_refresh_units IS NOT NULL)::BIGINT
        FROM {table} WHERE day >= ? AND day <= ? GROUP BY 1 ORDER BY 1""",
            [today.replace(day=1), today],
        ).fetchall()
    ]


def _budgets(con: duckdb.DuckDBPyConnection) -> dict[tuple[str, str, str], int]:
    """(source, measure, period) → allowed."""
    if not has(con, "ops.budgets"):
        return {}
    return {
        (s, m, p): n
        for s, m, p, n in con.execute(
            "SELECT source, measure, period, allowed FROM ops.budgets"
        ).fetchall()
    }


def spending(con: duckdb.DuckDBPyConnection, days: int, today: date | None = None) -> dict:
    """{first, last, sources: [{source, days: [[date, calls, units]], budget}]}, a row a day with
    a call, of the `days` days up to `today`."""
    today = today or datetime.now(UTC).date()
    first = today - timedelta(days=days - 1)
    table = "ops.spending" if has(con, "ops.spending") else f"({CALLED})"
    sources: dict[str, list] = {
        s: []
        for (s,) in con.execute("SELECT DISTINCT source FROM ops.coverage ORDER BY 1").fetchall()
    }
    for source, day, calls, units in con.execute(
        f"SELECT source, day, sum(calls)::BIGINT, sum(units)::BIGINT FROM {table} "
        "WHERE day >= ? AND day <= ? GROUP BY ALL ORDER BY ALL",
        [first, today],
    ).fetchall():
        sources.setdefault(source, []).append([str(day), calls, units])
    allowed = _budgets(con)
    return {
        "first": str(first),
        "last": str(today),
        "sources": [
            {
                "source": source,
                "days": rows,
                "budget": {
                    measure: {
                        period: allowed.get((source, measure, period))
                        for period in ("day", "month")
                    }
                    for measure in ("calls", "units")
                },
            }
            for source, rows in sources.items()
        ],
    }


def reconciliation(
    con: duckdb.DuckDBPyConnection, search: str, status: str, account: str, limit: int, offset: int
) -> dict:
    """{rows, total, offset, statuses}: what is off first. Kind, reason, since and the residual's
    value are None in books of older versions.

    `search` is looked for in symbol, token, name and account; `total` counts the rows that match,
    `statuses` all rows by status.
    """
    there = _columns(con, "curated.reconciliation")
    details = ", ".join(
        f"r.{name}::VARCHAR" if name in there else "NULL"
        for name in ("kind", "reason", "residual_value")
    ) + (", r.since" if "since" in there else ", NULL")
    matching = con.execute(
        f"""
        SELECT r.source, r.account, r.token, coalesce(a.symbol, r.token), coalesce(a.chain, ''),
               coalesce(a.is_verified, true), r.reported_text, r.computed_text,
               r.difference_text, r.status, r.is_exact, {details}, r.snapshot_ts,
               count(*) OVER () AS total
        FROM curated.reconciliation r LEFT JOIN curated.assets a ON a.token = r.token
        WHERE ($search = '' OR contains(lower(concat_ws(' ', a.symbol, a.name, r.token, r.source,
                                        r.account)), lower($search)))
          AND ($status = '' OR r.status = $status) AND ($account = '' OR r.account = $account)
        ORDER BY CASE WHEN r.status = 'off' THEN 0 WHEN r.status IN {AGREED} THEN 2 ELSE 1 END,
                 r.source, r.account, lower(coalesce(a.symbol, r.token)), r.token
        LIMIT {min(limit, MOST_ROWS)} OFFSET {offset}
        """,
        {"search": search, "status": status, "account": account},
    ).fetchall()
    names = (
        "source",
        "account",
        "token",
        "symbol",
        "chain",
        "verified",
        "reported",
        "computed",
        "difference",
        "status",
        "exact",
        "kind",
        "reason",
        "value",
    )
    return {
        "rows": [
            dict(zip(names, row)) | {"since": when(row[14]), "snapshot": when(row[15])}
            for row in matching
        ],
        "total": matching[0][-1] if matching else 0,
        "offset": offset,
        "statuses": dict(
            con.execute("SELECT status, count(*) FROM curated.reconciliation GROUP BY 1").fetchall()
        ),
    }


def assets(con: duckdb.DuckDBPyConnection) -> dict:
    """{assets, more}: the assets that each account has held, the most moved first."""
    rows = con.execute(f"""
        SELECT f.source, f.account, f.token, coalesce(a.symbol, f.token), coalesce(a.chain, '')
        FROM (SELECT source, account, token, sum(legs + overflow_legs) AS legs
              FROM curated.daily_flows GROUP BY ALL HAVING sum(legs + overflow_legs) > 0) f
        LEFT JOIN curated.assets a ON a.token = f.token
        ORDER BY f.source, f.account, f.legs DESC, f.token LIMIT {MOST_ASSETS + 1}""").fetchall()
    names = ("source", "account", "token", "symbol", "chain")
    return {
        "assets": [dict(zip(names, row)) for row in rows[:MOST_ASSETS]],
        "more": len(rows) > MOST_ASSETS,
    }


def balances(
    con: duckdb.DuckDBPyConnection, source: str, account: str, token: str, since: date | None = None
) -> dict:
    """{points: [[date, balance]], every, reported}: the balance after each day it changed on, the
    first and the last day known. Where those are more than MOST_POINTS, the last of every
    `every` days. The balance is exact text; to six digits where the books say it is not exact.
    """
    key = {"source": source, "account": account, "token": token, "since": since}
    points = con.execute(
        f"""
        WITH held AS (
            SELECT date, CASE WHEN is_exact THEN balance::VARCHAR ELSE balance_wide::VARCHAR END
                   AS balance FROM curated.daily_balances
            WHERE source = $source AND account = $account AND token = $token
              AND ($since::DATE IS NULL OR date >= $since::DATE)
        ), steps AS (
            SELECT *, max(date) OVER () AS last FROM held
            QUALIFY balance IS DISTINCT FROM lag(balance) OVER (ORDER BY date) OR date = last
                OR row_number() OVER (ORDER BY date) = 1
        ), sized AS (
            SELECT *, CASE WHEN count(*) OVER () <= {MOST_POINTS} THEN 1 ELSE
                   ceil((last - min(date) OVER () + 1) / {MOST_POINTS})::INTEGER END AS every
            FROM steps)
        SELECT date, balance, every FROM sized
        QUALIFY every = 1 OR row_number() OVER (
            PARTITION BY (last - date) // every ORDER BY date DESC) = 1
        ORDER BY date""",
        key,
    ).fetchall()
    reported = con.execute(
        "SELECT reported_text, snapshot_ts, status FROM curated.reconciliation "
        "WHERE source = ? AND account = ? AND token = ?",
        [source, account, token],
    ).fetchone()
    return {
        "points": [[str(day), text and digits(Decimal(text))] for day, text, _ in points],
        "every": points[0][2] if points else 1,
        "reported": {"balance": reported[0], "at": when(reported[1]), "status": reported[2]}
        if reported
        else None,
    }


def _checkpoints(con: duckdb.DuckDBPyConnection, docs: Path) -> list[dict]:
    """The last run of each table's checkpoint, worst first; `docs` is its page, if it is kept."""
    by_name: dict[str, dict] = {}
    # Bounded by time, which is how the files are sorted: years of checks are millions of rows.
    last = [
        at
        for (at,) in con.execute(
            "SELECT max(checked_at) FROM ops.checkpoints GROUP BY checkpoint"
        ).fetchall()
    ]
    if not last:
        return []
    for checkpoint, run_id, at, expectation, severity, success, observed in con.execute(
        """
            SELECT checkpoint, run_id, max(checked_at) OVER (PARTITION BY checkpoint),
                   expectation, severity, success, observed
            FROM ops.checkpoints WHERE checked_at >= ?::TIMESTAMP - INTERVAL 1 DAY
            QUALIFY run_id = arg_max(run_id, checked_at) OVER (PARTITION BY checkpoint)
            ORDER BY checkpoint, expectation""",
        [min(last)],
    ).fetchall():
        page = f"runs/{folder_of(run_id)}/{checkpoint}.html"
        entry = by_name.setdefault(
            checkpoint,
            {
                "checkpoint": checkpoint,
                "at": when(at),
                "run": run_id,
                "passed": 0,
                "warning": 0,
                "critical": 0,
                "info": 0,
                "failed": [],
                "docs": page if (docs / page).is_file() else None,
            },
        )
        entry["passed" if success else severity] += 1
        if not success and len(entry["failed"]) < MOST_FAILED:
            entry["failed"].append(f"{expectation}: {observed or 'failed'}"[:300])
    return sorted(by_name.values(), key=lambda c: (-c["critical"], -c["warning"], c["checkpoint"]))


def refused(docs: Path, published_at: datetime | None) -> dict | None:
    """The newest run of checks, where it is newer than the books and kept them from being published.

    Its checks are in no books: `run.json` of the Data Docs has them.
    """
    runs = []
    for path in docs.glob("runs/*/run.json"):
        try:
            run = sealed.read(path)
        except sealed.Damaged:
            continue  # removed meanwhile, or damaged: then the next check puts it aside
        if "checked_at" in run:
            runs.append((run, path.parent.name))
    newest, folder = max(runs, key=lambda run: run[0]["checked_at"], default=({}, ""))
    if not sum(table["critical"] for table in newest.get("tables", {}).values()):
        return None
    at = datetime.fromisoformat(newest["checked_at"]).astimezone(UTC).replace(tzinfo=None)
    if published_at and at <= published_at:
        return None
    worst = max(newest["tables"], key=lambda table: newest["tables"][table]["critical"])
    return {
        "run": newest["run_id"],
        "at": when(at),
        "failed": newest["failed"][:MOST_FAILED],
        "docs": f"runs/{folder}/{worst}.html",
    }


def _incidents(con: duckdb.DuckDBPyConnection) -> dict:
    """{open, total}: the newest open incidents."""
    if not has(con, "ops.incidents"):
        return {"open": [], "total": 0}
    names = ("incident_id", "kind", "source", "account", "subject", "severity", "text")
    rows = con.execute(f"""
        SELECT {", ".join(names)}, opened_at, count(*) OVER () FROM ops.incidents
        WHERE resolved_at IS NULL ORDER BY opened_at DESC LIMIT {MOST_INCIDENTS}""").fetchall()
    return {
        "open": [dict(zip(names, row)) | {"opened_at": when(row[7])} for row in rows],
        "total": rows[0][8] if rows else 0,
    }
