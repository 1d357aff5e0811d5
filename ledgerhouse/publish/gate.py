"""The gate before the books: an account whose checks failed keeps its last good days, all others
are published.

    require_passed(results, run_id)    the decision, for tasks and commands alike
    publish_checked(batches, changed)  publish what a run has transformed and checked
    check_and_publish(transformed)     check, decide and publish, in one process

The order survives a crash: the marks of touched days are dropped only after the checks have passed
and the books are out; until then the next run transforms, checks and publishes the same days again.
So do the marks of loads that hold rows of a held account, until it passes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

from extract.core.interval import Interval, iso
from ledgerhouse.check.checkpoints import CheckResult, failed_critical, recorded
from ledgerhouse.config import AccountsFile
from ledgerhouse.publish.held import Account
from ledgerhouse.warehouse.connection import open_warehouse
from ledgerhouse.warehouse.transaction import transaction

if TYPE_CHECKING:
    import duckdb

    from ledgerhouse.publish.publish import Published
    from ledgerhouse.transform.sqlmesh_context import Span
    from ledgerhouse.transform.touched_days import Mark, Transformed

NAMED = 5  # failed expectations that an error names


class NotChecked(RuntimeError):
    """These days must not be published: no check of this run passed over them.

    `failed` are the critical expectations that failed, none where no check is recorded; `off` the
    accounts held for their balances.
    """

    def __init__(self, run_id: str, failed: Sequence[CheckResult], off: Collection[Account] = ()):
        names = "; ".join(f"{r.checkpoint} {r.expectation}" for r in failed[:NAMED])
        reason = (
            f"{len(failed)} critical expectation(s) failed for run {run_id}: {names}"
            if failed
            else f"balances of every account are off, and [checks] off holds them, in run {run_id}"
            if off
            else f"no check is recorded for run {run_id}"
        )
        super().__init__(
            f"nothing is published: {reason}. See the Data Docs, fix the cause and clear the "
            "task check"
        )
        self.failed = tuple(failed)


@dataclass(frozen=True)
class HeldAccount:
    """An account whose last good days the books keep. `since` is naive UTC."""

    source: str
    account: str
    since: datetime
    reason: str

    def __str__(self) -> str:
        return f"{self.source} {self.account}, held since {iso(self.since)}: {self.reason}"


def require_passed(
    results: Sequence[CheckResult], run_id: str, everybody: Collection[Account] = ()
) -> dict[Account, str]:
    """The accounts to hold back, and what failed on the rows of each; none where all passed.

    Raises NotChecked where nothing may be published: `run_id` has no results, a critical
    expectation failed on rows of nobody knows whom, or those of `everybody` failed one.
    """
    failed = failed_critical(results)
    if not results or any(r.accounts is None for r in failed):
        raise NotChecked(run_id, failed)
    reasons: dict[Account, list[str]] = {}
    for result in failed:
        for account in result.accounts or ():
            reasons.setdefault(account, []).append(f"{result.checkpoint} {result.expectation}")
    if everybody and set(everybody) <= reasons.keys():
        raise NotChecked(run_id, failed)
    return {account: "; ".join(names) for account, names in reasons.items()}


def known_accounts(con: duckdb.DuckDBPyConnection) -> set[Account]:
    """The accounts of which the warehouse holds anything."""
    return set(con.execute("SELECT DISTINCT source, account FROM ops.coverage").fetchall())


def publish_checked(
    batches: Sequence[str],
    changed: Mapping[str, Iterable[Span]] | None = None,
    *,
    run_id: str,
    owner: str,
) -> Published:
    """Publish the days that `batches` touched and `run_id` has checked, then drop their marks.

    Accounts on whose rows a critical expectation failed keep their rows as published before, and
    the marks of their loads stay; `Published.held` names them.
    `changed` are the days by table as the transform has computed them; None computes them from the
    marks again. Publishes nothing and keeps every mark when it raises: NotChecked where the checks
    of this run are missing, or failed for everybody, Superseded where there are marks of batches
    not among these.
    """
    from ledgerhouse.publish.books import published_dir
    from ledgerhouse.publish.publish import publish
    from ledgerhouse.transform.touched_days import (
        clear_touched_days,
        marks_of,
        refuse_later_loads,
        touched,
    )

    with open_warehouse(owner=owner) as con:
        results = recorded(con, run_id)
        reasons = require_passed(results, run_id)
        off = _off(con)
        for account, reason in off.items():
            reasons[account] = "; ".join(filter(None, (reasons.get(account), reason)))
        marks = marks_of(con)
        refuse_later_loads(con, batches)
        held = _note_held(con, reasons, run_id)
        if reasons and known_accounts(con) <= reasons.keys():
            raise NotChecked(run_id, failed_critical(results), off)
        days = touched(con, batches)[1] if changed is None else _days(changed)
        published = publish(con, published_dir(), days, run_id=run_id, held=reasons.keys())
        clear_touched_days(con, _finished(con, marks, reasons.keys()))
    return replace(published, held=held)


def check_and_publish(transformed: Transformed, *, run_id: str, owner: str) -> Published:
    """Check what was transformed, and publish it where the checks pass; raises NotChecked."""
    from ledgerhouse.check.run import check

    spans = transformed.spans
    interval = Interval(spans[0].start, spans[-1].end)
    require_passed(
        check(
            interval,
            run_id=run_id,
            owner=owner,
            spans=spans,
            batches=transformed.batches,
        ),
        run_id,
    )
    return publish_checked(transformed.batches, transformed.changed, run_id=run_id, owner=owner)


def _off(con: duckdb.DuckDBPyConnection) -> dict[Account, str]:
    """The accounts to hold because balances are off, where [checks] of accounts.toml says so.

    Raises ValueError where the file cannot be read: what it holds back is not published by mistake.
    """
    if AccountsFile.read().checks().off != "hold":
        return {}
    rows = con.execute(
        "SELECT source, account, count(*) FROM curated.reconciliation WHERE status = 'off' GROUP BY ALL"
    ).fetchall()
    return {
        (source, account): f"{count} balance(s) off ([checks] off = hold)"
        for source, account, count in rows
    }


def _note_held(
    con: duckdb.DuckDBPyConnection, reasons: Mapping[Account, str], run_id: str
) -> tuple[HeldAccount, ...]:
    """Write ops.held_accounts: who is held now, each since it was first, and nobody else."""
    now = datetime.now(UTC).replace(tzinfo=None)
    with transaction(con):
        since = {
            (source, account): at
            for source, account, at in con.execute(
                "SELECT source, account, held_since FROM ops.held_accounts"
            ).fetchall()
        }
        held = tuple(
            HeldAccount(*account, since.get(account, now), reason)
            for account, reason in sorted(reasons.items())
        )
        con.execute("DELETE FROM ops.held_accounts")
        for one in held:
            con.execute(
                "INSERT INTO ops.held_accounts (source, account, held_since, run_id, reason) "
                "VALUES (?, ?, ?, ?, ?)",
                [one.source, one.account, one.since, run_id, one.reason],
            )
    return held


def _finished(
    con: duckdb.DuckDBPyConnection, marks: Sequence[Mark], held: Collection[Account]
) -> Sequence[Mark]:
    """The marks of batches that hold no row of a held account.

    Where a held account is in none of them (its rows were damaged on a day of others), none is:
    its day must be checked again.
    """
    if not held:
        return marks
    accounts: dict[str, set[Account]] = {}
    for batch, source, names in con.execute(
        "SELECT batch_id, source, account FROM ops.batches"
    ).fetchall():
        accounts.setdefault(batch, set()).update((source, name) for name in names.split(","))
    marked = {batch for _, _, batch in marks}
    unfinished = {b for b in marked if b not in accounts or accounts[b] & set(held)}
    if not set(held) <= set().union(*(accounts.get(batch, set()) for batch in unfinished)):
        return []
    return [mark for mark in marks if mark[2] not in unfinished]


def _days(changed: Mapping[str, Iterable[Span]]) -> dict[str, set[date]]:
    """Spans [first, after) as their days."""
    return {
        table: {
            first + timedelta(days=n) for first, after in spans for n in range((after - first).days)
        }
        for table, spans in changed.items()
    }
