"""Conditions of alerts: what is wrong at this moment, read from the warehouse, by kind of incident.

Nothing is remembered here: `ledgerhouse.operate.alerts.incidents` knows what is new and what is
over. A kind whose tables are missing or whose query fails is left out: what is open of it stays
open.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from extract.core.interval import iso, utc
from extract.core.text import visible
from ledgerhouse.check.agreement import AGREED
from ledgerhouse.config import Account, Rules

if TYPE_CHECKING:
    import duckdb

log = logging.getLogger(__name__)
TEXT = 400  # characters of somebody else's words that a text quotes
UNDER_WAY = timedelta(hours=24)  # a load that takes longer keeps nobody from an alert
OWN_WORK = ("mirror", "alert", "complete")  # tasks that say nothing about the books
QUIET = (*AGREED, "not_reconcilable")  # statuses of a balance that needs no alert
REBUILD = "rebuild"  # the checkpoint of ledgerhouse.transform.rebuild
UNRECORDED = ("late_run",)  # kinds that are sent without the warehouse: see alerts.unrecorded
# kind → severity, and what to do
KINDS = {
    "failed_source": (
        "critical",
        "Look at the log of that task. The interval stays open, and the "
        "next run asks for it again; a refused key is replaced in its Connection.",
    ),
    "failed_task": (
        "critical",
        "Look at the log of that task, fix the cause and clear it; what "
        "was published stays until it succeeds.",
    ),
    "late_run": (
        "warning",
        "See in Airflow which of its tasks is at work, and in that task's log at what. A task that "
        "hangs: mark it failed. `[deadlines]` in accounts.toml says when a run is late, and when "
        "it is stopped.",
    ),
    "stale_coverage": (
        "warning",
        "See that the scheduler runs, that the DAG sync is not paused "
        "and that its last run is green; `airflow warehouse coverage` shows holes.",
    ),
    "damaged_file": (
        "critical",
        "It is in the folder `quarantine` beside where it was, with the reason; all other files "
        "are loaded. What a landed file covers is a gap, which the next sync fetches again. Run "
        "`airflow warehouse verify`, look at the disk, and remove the file when that is done.",
    ),
    "held_account": (
        "critical",
        "Its last good days stay in the books, all other accounts are published. See the Data "
        "Docs of the run and fix the cause: each sync checks its days again.",
    ),
    "balance_regressed": (
        "critical",
        "It agreed before: the panel of breaks shows the window and the suspect, `airflow "
        "warehouse explain ACCOUNT ASSET DAY` the rows behind the number.",
    ),
    "balance_off": (
        "warning",
        "The number is published with its status. `airflow warehouse explain ACCOUNT ASSET DAY` shows the rows "
        "behind the number; weekly_refresh with scope=full reads the history again.",
    ),
    "check_failed": (
        "critical",
        "Nothing is published until it passes: see the Data Docs of the "
        "run, fix the cause and clear its task check.",
    ),
    "budget": (
        "warning",
        "At the limit, runs stop before the call: raise it in accounts.toml, or "
        "let them wait for the next period.",
    ),
    "budget_reached": (
        "critical",
        "Runs stop before the call and keep what they have; they go on "
        "in the next period, or when the limit in accounts.toml is raised.",
    ),
    "unknown_type": (
        "warning",
        "The rows count in the balances, but not as deposit, trade or fee: "
        "map the type in the source's file and run `make replay`.",
    ),
    "refresh_difference": (
        "critical",
        "Curated is not what its raw rows give: `make replay` "
        "builds it again; the log of the task rebuild names the rows.",
    ),
    "late_rows": (
        "warning",
        "They came later than any lookback reached and are loaded now; see "
        "ops.refreshes and the log of the task report.",
    ),
    "vanished_rows": (
        "warning",
        "They are kept, marked, and out of the balances; see the log of "
        "the task report, and ask the vendor.",
    ),
}


@dataclass(frozen=True)
class Incident:
    """Something that is wrong now; two with the same `key` are the same incident.

    Not `certain`: it cannot be known at present. It opens nothing, and keeps open what is.
    """

    kind: str
    source: str
    account: str
    subject: str
    text: str
    certain: bool = True

    @property
    def key(self) -> tuple[str, str, str, str]:
        return self.kind, self.source, self.account, self.subject


def present_incidents(
    con: duckdb.DuckDBPyConnection, accounts: Sequence[Account], rules: Rules, now: datetime
) -> dict[str, list[Incident]]:
    """What is wrong now, by kind, of the accounts that are listed; kinds that could not be checked
    are missing. Reads only. `now` is aware."""
    import duckdb

    con.execute(
        "CREATE OR REPLACE TEMP TABLE listed (source VARCHAR, account VARCHAR, connection VARCHAR)"
    )
    for account in accounts:
        con.execute(
            "INSERT INTO listed VALUES (?, ?, ?)",
            [account.source, account.account, account.connection],
        )
    by_kind: dict[str, list[Incident]] = {}
    for kinds, condition in CONDITIONS.items():
        try:
            incidents = condition(con, rules, utc(now))
        except duckdb.Error as error:
            log.warning("%s cannot be checked at present: %s", " and ".join(kinds), error)
            continue
        for kind in kinds:
            by_kind[kind] = [incident for incident in incidents if incident.kind == kind]
    con.execute("DROP TABLE listed")
    return by_kind


_TRIES = """
WITH tries AS (
    SELECT *, coalesce(started, ended, mirrored_at) AS moment FROM ops.last_attempts
)"""


def _failed_sources(con: duckdb.DuckDBPyConnection, rules: Rules, now: datetime) -> list[Incident]:
    """The newest run that fetched anything of the account, or that could not plan to, or whose
    probe of the host failed."""
    rows = con.execute(
        _TRIES
        + """, mine AS (
        SELECT l.source, l.account, t.* EXCLUDE (source, account) FROM tries t JOIN listed l
            ON t.source = l.source AND t.account = l.account AND t.task_id LIKE 'fetch%'
        UNION ALL  -- a probe is of all accounts; an attempt that never began left not whose it is
        SELECT l.source, l.account, t.* EXCLUDE (source, account) FROM tries t JOIN listed l
            ON t.task_id IN
                ('plan_' || l.connection, 'probe_' || l.connection, 'fetch_' || l.connection)
        WHERE t.source IS NULL AND t.state = 'failed'
    ), runs AS (
        SELECT source, account, dag_id, run_id, min(moment) AS began,
            bool_or(coalesce(state, '') = 'failed') AS failed,
            bool_and(coalesce(state, '') IN ('success', 'failed')) AS ended,
            arg_min(task_id, moment) FILTER (state = 'failed') AS task,
            arg_min(error, moment) FILTER (state = 'failed') AS error
        FROM mine GROUP BY ALL
    )
    SELECT source, account, dag_id, run_id, began, task, error, failed FROM runs
    WHERE failed OR ended
    QUALIFY row_number() OVER (PARTITION BY source, account ORDER BY began DESC) = 1"""
    ).fetchall()
    return [
        Incident(
            "failed_source",
            source,
            account,
            "",
            f"the last run failed: {dag_id} {run_id}, task {task}, of {iso(utc(began))}: "
            f"{quoted(error) or 'it left no message'}",
        )
        for source, account, dag_id, run_id, began, task, error, failed in rows
        if failed
    ]


def _failed_tasks(con: duckdb.DuckDBPyConnection, rules: Rules, now: datetime) -> list[Incident]:
    """The newest end of each task that is no fetch, of whatever DAG; a check that has recorded what
    failed is check_failed's."""
    rows = con.execute(
        _TRIES
        + f""", newest AS (
        SELECT * FROM tries WHERE state IN ('success', 'failed') AND task_id NOT IN {OWN_WORK}
            AND task_id NOT LIKE 'fetch%' AND task_id NOT LIKE 'plan%'
            AND task_id NOT LIKE 'probe%'
        QUALIFY row_number() OVER (PARTITION BY task_id ORDER BY moment DESC) = 1
    )
    SELECT task_id, dag_id, run_id, moment, error FROM newest n WHERE state = 'failed' AND NOT (
        task_id IN ('check', 'rebuild') AND EXISTS (FROM ops.checkpoints c WHERE
            c.run_id = n.run_id AND NOT c.success AND c.severity = 'critical')
        OR task_id = 'publish' AND EXISTS (FROM ops.held_accounts h WHERE h.run_id = n.run_id))"""
    ).fetchall()
    return [
        Incident(
            "failed_task",
            "",
            "",
            task,
            f"it failed last: {dag_id} {run_id}, of {iso(utc(at))}: "
            f"{quoted(error) or 'it left no message'}",
        )
        for task, dag_id, run_id, at, error in rows
    ]


def _stale(con: duckdb.DuckDBPyConnection, rules: Rules, now: datetime) -> list[Incident]:
    """Accounts whose coverage ends too long ago. Of one that a run is fetching at this moment it
    cannot be known: coverage comes with the load, hours after the first call of a long history."""
    rows = con.execute(
        """
        SELECT l.source, l.account, r.whole_to, r.whole_to < r.until, EXISTS (
            FROM ops.last_attempts f
            WHERE f.task_id IN ('plan_' || l.connection, 'fetch_' || l.connection)
              AND coalesce(f.started, f.mirrored_at) > ?::TIMESTAMP
              AND NOT EXISTS (
                FROM ops.last_attempts m WHERE (m.dag_id, m.run_id) = (f.dag_id, f.run_id)
                  AND (m.task_id = 'mirror' AND coalesce(m.state, '') IN ('success', 'failed',
                      'skipped', 'upstream_failed', 'removed')
                    OR m.task_id IN ('load', 'transform') AND m.state = 'failed')))
        FROM listed l LEFT JOIN ops.reached r USING (source, account)""",
        [(now - UNDER_WAY).replace(tzinfo=None)],
    ).fetchall()
    incidents = []
    for source, account, reached, hole, under_way in rows:
        if reached is None:
            text = "nothing of it was ever read"
        elif now - utc(reached) <= rules.stale_after:
            continue
        else:
            text = f"covered through {iso(utc(reached))}" + (
                ", where a hole begins" if hole else ""
            )
        incidents.append(
            Incident(
                "stale_coverage",
                source,
                account,
                "",
                text + "; more than "
                f"{rules.stale_after.total_seconds() / 3600:g} hours are missing",
                not under_way,
            )
        )
    return incidents


def _damaged(con: duckdb.DuckDBPyConnection, rules: Rules, now: datetime) -> list[Incident]:
    rows = con.execute(
        "SELECT place, file, source, account, reason FROM ops.quarantined_files"
    ).fetchall()
    return [
        Incident(
            "damaged_file",
            source,
            account,
            quoted(f"{place}/{file}"),
            f"{quoted(file)} cannot be read: {quoted(reason)}",
        )
        for place, file, source, account, reason in rows
    ]


def _held(con: duckdb.DuckDBPyConnection, rules: Rules, now: datetime) -> list[Incident]:
    rows = con.execute("""
        SELECT source, account, held_since, reason, run_id, words
        FROM ops.held_accounts JOIN listed USING (source, account)
        LEFT JOIN (SELECT source, account, arg_min(explanation, first_bad_ts) AS words
                   FROM ops.breaks WHERE wallet IS NOT NULL GROUP BY ALL) USING (source, account)
        """).fetchall()
    return [
        Incident(
            "held_account",
            source,
            account,
            "",
            f"not published since {iso(utc(since))}: {quoted(reason)} (run {run_id})"
            + (f"; {quoted(words)}" if words else ""),
        )
        for source, account, since, reason, run_id, words in rows
    ]


def _off(con: duckdb.DuckDBPyConnection, rules: Rules, now: datetime) -> list[Incident]:
    """Balances that are off; regressed where a snapshot before agreed. One that is not judged yet
    (settling, awaiting_coverage) keeps open what is."""
    rows = con.execute(f"""
        SELECT source, account, r.token, coalesce(a.symbol, r.token), status, computed_text,
            reported_text, difference_text, snapshot_ts, b.last_good_ts, b.suspect
        FROM curated.reconciliation r JOIN listed USING (source, account)
        LEFT JOIN (SELECT token, any_value(symbol) AS symbol FROM curated.assets GROUP BY ALL) a
            ON a.token = r.token
        LEFT JOIN (
            SELECT source, account, token, arg_max(last_good_ts, first_bad_ts) AS last_good_ts,
                arg_max(suspect, first_bad_ts) AS suspect FROM ops.breaks WHERE wallet IS NULL
            GROUP BY ALL
        ) b ON b.source = r.source AND b.account = r.account AND b.token = r.token
        WHERE status NOT IN {QUIET}""").fetchall()
    return [
        Incident(
            kind,
            source,
            account,
            token,
            f"{quoted(symbol)}: computed {computed}, reported {reported} at "
            f"{iso(utc(at))}; the difference is {difference}"
            + (f"; it agreed at {iso(utc(good))}, suspect: {quoted(suspect)}" if good else ""),
            status == "off",
        )
        for (
            source,
            account,
            token,
            symbol,
            status,
            computed,
            reported,
            difference,
            at,
            good,
            suspect,
        ) in rows
        for kind in (
            ("balance_off", "balance_regressed")
            if status != "off"
            else ("balance_regressed",)
            if good
            else ("balance_off",)
        )
    ]


def _checks(con: duckdb.DuckDBPyConnection, rules: Rules, now: datetime) -> list[Incident]:
    """Of each checkpoint's newest run, what is critical and failed; where it holds back accounts,
    and the others are published, held_account says it."""
    rows = con.execute("""
        SELECT checkpoint, expectation, observed, run_id FROM ops.checkpoints
        WHERE (checkpoint, run_id) IN (
            SELECT checkpoint, arg_max(run_id, checked_at) FROM ops.checkpoints GROUP BY ALL)
        AND NOT success AND severity = 'critical' AND (accounts IS NULL OR run_id NOT IN (
            SELECT run_id FROM ops.held_accounts))""").fetchall()
    return [
        Incident(
            "refresh_difference" if checkpoint == REBUILD else "check_failed",
            "",
            "",
            f"{checkpoint}: {expectation}",
            f"{quoted(observed)} (run {run_id})",
        )
        for checkpoint, expectation, observed, run_id in rows
    ]


# Fetches that met a limit since it opened. Rows of the version before have no error_type; those
# of this month are known by their text.
STOPPED = """
SELECT count(*) FROM ops.sync_runs WHERE source = $source AND started >= $began AND (
    (error_type = 'BudgetReached' AND (error_fields->>'$.measure') = $measure
        AND (error_fields->>'$.period') = $period
        AND (error_fields->>'$.allowed')::BIGINT = $allowed)
    OR (error_type IS NULL AND starts_with(error, $sentence)))"""


def _budgets(con: duckdb.DuckDBPyConnection, rules: Rules, now: datetime) -> list[Incident]:
    incidents = []
    for source, measure, period, allowed in con.execute("FROM ops.budgets").fetchall():
        began = now.date() if period == "day" else now.date().replace(day=1)
        ((spent,),) = con.execute(
            f"SELECT coalesce({'sum(units)' if measure == 'units' else 'count(*)'}, 0)::BIGINT "
            "FROM ops.api_calls WHERE source = ? AND called_at >= ?",
            [source, began],
        ).fetchall()
        # A call may cost more than is left: then less is spent, and the fetch was stopped.
        ((stopped,),) = con.execute(
            STOPPED,
            {
                "source": source,
                "began": began,
                "measure": measure,
                "period": period,
                "allowed": allowed,
                "sentence": f"BudgetReached: the budget of {source} allows {allowed:,} {measure} "
                f"a {period}:",
            },
        ).fetchall()
        text = f"{spent:,} of {allowed:,} {measure} spent since {began}T00:00Z"
        reached = spent >= allowed or bool(stopped)
        if allowed and spent >= rules.budget_at * allowed:  # that it is reached says more
            incidents.append(
                Incident(
                    "budget",
                    source,
                    "",
                    f"{measure} a {period}",
                    f"{text}: {100 * spent // allowed} %",
                    not reached,
                )
            )
        if reached:
            incidents.append(Incident("budget_reached", source, "", f"{measure} a {period}", text))
    return incidents


def _unknown(con: duckdb.DuckDBPyConnection, rules: Rules, now: datetime) -> list[Incident]:
    rows = con.execute("""
        SELECT source, account, type, count(*), min(ts) FROM raw.exchanges_ledger
        JOIN listed USING (source, account) WHERE kind = 'unknown' AND vanished_at IS NULL
        GROUP BY ALL""").fetchall()
    return [
        Incident(
            "unknown_type",
            source,
            account,
            quoted(kind),
            f"{_rows(count)} of a type that is not mapped, the first of {iso(utc(first))}",
        )
        for source, account, kind, count, first in rows
    ]


def _refreshes(con: duckdb.DuckDBPyConnection, rules: Rules, now: datetime) -> list[Incident]:
    """What the newest refresh of each account has met: late and vanished rows."""
    rows = con.execute("""
        SELECT source, account, run_id, sum(rows_new)::BIGINT, sum(rows_vanished)::BIGINT
        FROM ops.refreshes JOIN listed USING (source, account)
        WHERE (source, account, run_id) IN (
            SELECT source, account, arg_max(run_id, recorded_at) FROM ops.refreshes GROUP BY ALL)
        GROUP BY ALL""").fetchall()
    incidents = []
    for source, account, run_id, new, vanished in rows:
        if new:
            incidents.append(
                Incident(
                    "late_rows",
                    source,
                    account,
                    "",
                    f"{_rows(new)} in settled time, new to {run_id}",
                )
            )
        if vanished:
            incidents.append(
                Incident(
                    "vanished_rows",
                    source,
                    account,
                    "",
                    f"{_rows(vanished)} vanished at the vendor ({run_id})",
                )
            )
    return incidents


CONDITIONS: dict[tuple[str, ...], Callable] = {
    ("failed_source",): _failed_sources,
    ("failed_task",): _failed_tasks,
    ("stale_coverage",): _stale,
    ("damaged_file",): _damaged,
    ("held_account",): _held,
    ("balance_off", "balance_regressed"): _off,
    ("check_failed", "refresh_difference"): _checks,
    ("budget", "budget_reached"): _budgets,
    ("unknown_type",): _unknown,
    ("late_rows", "vanished_rows"): _refreshes,
}


def _rows(count: int) -> str:
    return f"{count:,} row{'s' * (count != 1)}"


def quoted(text: str | None) -> str:
    """A text of others (a vendor, an exception) on one line, not too long."""
    line = visible(" ".join((text or "").split()))
    return line if len(line) <= TEXT else line[:TEXT] + "…"
