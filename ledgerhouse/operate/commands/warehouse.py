"""`airflow warehouse status` and `coverage`: how far each account is covered, and whether it agrees."""

from __future__ import annotations

from typing import Any

from extract.core.interval import iso
from ledgerhouse.check.agreement import AGREED
from ledgerhouse.operate.commands import CommandFailed
from ledgerhouse.operate.commands.balances import show_balances
from ledgerhouse.operate.commands.books import accounts, opened
from ledgerhouse.operate.commands.tables import rows
from ledgerhouse.plan.coverage import PENDING
from ledgerhouse.publish.books import has
from ledgerhouse.warehouse.views import FETCHES

HELD = "SELECT source, account, held_since, reason FROM ops.held_accounts"

CHAINS = """
    SELECT source, account, count(*)::BIGINT AS broken, min(first_bad_ts) AS since
    FROM ops.breaks WHERE wallet IS NOT NULL GROUP BY ALL"""
UNUSED = """
    SELECT source, account, list(DISTINCT wallet ORDER BY wallet) AS wallets
    FROM ops.running_balances WHERE status = 'no running balance' GROUP BY ALL"""

QUARANTINED = "SELECT place, file, reason, found_at FROM ops.quarantined_files ORDER BY ALL"

# The last run is the newest that fetched anything of the account.
STATUS = f"""
WITH known AS (
    SELECT DISTINCT source, account FROM ops.coverage
), tries AS (
    SELECT source, account, dag_id, run_id, state, started, error FROM ({FETCHES})
), each_run AS (
    SELECT source, account, run_id, any_value(dag_id) AS dag_id, min(started) AS started,
        CASE WHEN bool_or(state = 'failed') THEN 'failed'
             WHEN bool_and(state = 'success') THEN 'success' ELSE max(state) END AS state,
        any_value(error) FILTER (state = 'failed') AS error
    FROM tries GROUP BY ALL
), runs AS (
    FROM each_run
    QUALIFY row_number() OVER (PARTITION BY source, account ORDER BY started DESC) = 1
), pending AS (
    SELECT source, account, count(*) AS pending, min(ts) AS oldest_pending
    FROM raw.exchanges_ledger WHERE vanished_at IS NULL AND status IN {PENDING} GROUP BY ALL
), judged AS (
    SELECT source, account, count(*) FILTER (status IN {AGREED}) AS reconciled,
        count(*) AS assets, count(*) FILTER (status = 'off') AS off,
        count(*) FILTER (status = 'awaiting_coverage') AS awaiting, max(snapshot_ts) AS snapshot,
        count(*) FILTER (status = 'settling') AS settling,
        count(*) FILTER (status = 'explained') AS explained,
        count(*) FILTER (status = 'not_reconcilable') AS not_reconcilable
    FROM curated.reconciliation GROUP BY ALL
)
SELECT k.source, k.account, c.since, c.whole_to AS covered_through,
    coalesce(c.gaps, 0) AS gaps, r.dag_id, r.run_id, r.started AS last_run, r.state, r.error,
    coalesce(p.pending, 0) AS pending, p.oldest_pending,
    coalesce(j.reconciled, 0) AS reconciled, coalesce(j.assets, 0) AS assets,
    coalesce(j.off, 0) AS off, coalesce(j.awaiting, 0) AS awaiting, j.snapshot,
    coalesce(j.settling, 0) AS settling, coalesce(j.explained, 0) AS explained,
    coalesce(j.not_reconcilable, 0) AS not_reconcilable
FROM known k
LEFT JOIN ops.reached c USING (source, account) LEFT JOIN runs r USING (source, account)
LEFT JOIN pending p USING (source, account) LEFT JOIN judged j USING (source, account)
ORDER BY k.source, k.account"""

# A segment a sync; those that touch are one line, with the newest run and why its paging ended.
COVERAGE = """
SELECT source, account, dataset, 'covered' AS what, start_ts AS start, end_ts AS "end",
    segments AS readings, read_at, reason, run_id
FROM ops.covered_spans WHERE dataset NOT IN ('balances', 'positions')
UNION ALL
SELECT source, account, dataset, 'snapshots', min(start_ts), max(end_ts), count(*), max(read_at),
    arg_max(reason, end_ts), arg_max(run_id, end_ts)
FROM ops.coverage WHERE dataset IN ('balances', 'positions') GROUP BY ALL
UNION ALL
SELECT source, account, dataset, 'gap', start_ts, end_ts, 0, NULL,
    'not read: the next sync does, or a backfill', NULL FROM ops.gaps
ORDER BY ALL"""


SOURCES = """
SELECT source, depth, CASE WHEN reconcilable THEN 'yes' ELSE 'no: ' || why END AS reconcilable
FROM ops.sources ORDER BY source"""


def status(args: Any) -> int:
    """Per account; 1 when one has gaps, is off, held back or failed last, or a file is in quarantine."""
    with opened(args.output) as (con, answer):
        mine = accounts(con, args.source, args.account)
        lines = [row for row in rows(con, STATUS) if (row["source"], row["account"]) in mine]
        held = rows(con, HELD) if has(con, "ops.held_accounts") else []
        by_account = {(one["source"], one["account"]): one for one in held}
        chains = _by_account(con, "ops.breaks", CHAINS)
        unused = _by_account(con, "ops.running_balances", UNUSED)
        for row in lines:
            who = row["source"], row["account"]
            one, broken = by_account.get(who, {}), chains.get(who, {})
            row |= {"held_since": one.get("held_since"), "held_reason": one.get("reason")}
            row |= {"broken_chains": broken.get("broken", 0), "broken_since": broken.get("since")}
            row["no_running_balance"] = unused.get(who, {}).get("wallets", [])
            more = ", ".join(
                f"{row[name]} {words}"
                for name, words in (
                    ("explained", "explained"),
                    ("settling", "settling"),
                    ("not_reconcilable", "not reconcilable"),
                    ("awaiting", "not read yet"),
                    ("off", "off"),
                )
                if row[name]
            )
            row["agree"] = f"{row['reconciled']}/{row['assets']}" + (f" ({more})" if more else "")
            row["run"] = " ".join(filter(None, (row["dag_id"], row["state"]))) or "never seen"
        answer.table(
            "accounts",
            "Accounts",
            lines,
            {
                "source": "source",
                "account": "account",
                "covered_through": "covered through",
                "gaps": "gaps",
                "last_run": "last fetch",
                "run": "by",
                "pending": "pending",
                "agree": "reconciled",
            },
            marked=_is_wrong,
            right=("agree",),
        )
        if has(con, "ops.sources"):
            answer.table(
                "sources",
                "What the APIs can tell",
                [row for row in rows(con, SOURCES) if row["source"] in {s for s, _ in mine}],
                {"source": "source", "depth": "history goes back", "reconcilable": "reconcilable"},
            )
        for row in lines:
            if row["held_since"]:
                answer.say(
                    f"{row['source']} {row['account']}: held back since {iso(row['held_since'])}, "
                    f"the books keep its last good days: {row['held_reason']}",
                    style="bold red",
                )
            if row["broken_chains"]:
                answer.say(
                    f"{row['source']} {row['account']}: {row['broken_chains']} running balances do "
                    f"not follow from the one before, the first at {iso(row['broken_since'])}; "
                    "airflow warehouse breaks shows them",
                    style="bold red",
                )
            if row["no_running_balance"]:
                answer.say(
                    f"{row['source']} {row['account']}: no running balance in "
                    f"{', '.join(row['no_running_balance'])}; what its entries state is not used",
                    style="yellow",
                )
            if row["gaps"]:
                answer.say(
                    f"{row['source']} {row['account']}: {row['gaps']} {'gap' if row['gaps'] == 1 else 'gaps'}; airflow "
                    "warehouse coverage shows them",
                    style="bold red",
                )
            if row["state"] == "failed":
                answer.say(
                    f"{row['source']} {row['account']}: {row['error'] or 'failed'}",
                    style="bold red",
                )
        if has(con, "ops.breaks"):  # and not in the first version's books
            show_balances(con, answer, mine)
        aside = rows(con, QUARANTINED) if has(con, "ops.quarantined_files") else []
        answer.document["quarantined"] = aside
        for file in aside:
            answer.say(
                f"{file['place']}/quarantine/{file['file']}: {file['reason']}; put aside "
                f"{iso(file['found_at'])}",
                style="bold red",
            )
    return int(any(map(_is_wrong, lines)) or bool(aside))


def _is_wrong(row) -> bool:
    return bool(row["gaps"] or row["off"] or row["held_since"] or row["state"] == "failed")


def _by_account(con, table: str, query: str) -> dict[tuple[str, str], dict[str, Any]]:
    """The rows of a query by source and account; none where the books lack its table."""
    found = rows(con, query) if has(con, table) else []
    return {(row["source"], row["account"]): row for row in found}


def coverage(args: Any) -> int:
    """Every stretch that is whole, with the run that ended it, and the gaps between."""
    with opened(args.output) as (con, answer):
        mine = accounts(con, args.source, args.account)
        known = [
            d["dataset"] for d in rows(con, "SELECT DISTINCT dataset FROM ops.coverage ORDER BY 1")
        ]
        if args.dataset and args.dataset not in known:
            raise CommandFailed(
                f"the books hold no dataset {args.dataset!r}; they hold: {', '.join(known)}", 2
            )
        lines = [
            row
            for row in rows(con, COVERAGE)
            if (row["source"], row["account"]) in mine and args.dataset in (None, row["dataset"])
        ]
        answer.table(
            "coverage",
            "Coverage, [from, to)",
            lines,
            {
                "source": "source",
                "account": "account",
                "dataset": "dataset",
                "what": "",
                "start": "from",
                "end": "to",
                "readings": "segments",
                "reason": "why it ended",
                "run_id": "newest run",
            },
            marked=lambda row: row["what"] == "gap",
        )
    return 0
